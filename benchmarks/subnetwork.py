"""A training step of a sub-network over the same step of a plain dense network of its widths.

The sub-network's step draws fresh masks, gathers, runs forward, backward and the optimiser, and
scatters; the plain one runs forward, backward and the optimiser on a network that was built at
these widths. Beside them, what others do: masking with zeros (the full network trains), and
building model and optimiser anew for each mini-batch. All take turns on one thread; each figure is
the median of the ratios to the plain step of the same turn.
"""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    KeptCounts,
    RandomMasks,
    SubNetwork,
    Workspace,
    kept_counts,
    zero_dropped,
)
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.compat import torchvision
from distreal_dse.support.seeding import generator

KEEPS = (1.0, 0.75, 0.5, 0.25)
# Vectors trained one after the other where memory is measured; the last one is the widest.
MEMORY_KEEPS = (0.25, 0.5, 0.3, 0.75, 0.6, 0.4, 0.8, 0.9)
SMALL, LARGE_BATCH = 32, 128
Step = Callable[[], object]


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]]:
    """Builders, input shapes and goals by name."""
    return {
        "digits-cnn": (StudySource("digits-cnn").load().model, (1, 8, 8), 1.25),
        "resnet20": (StudySource("cifar10-resnet20").load().model, (3, 32, 32), 1.05),
        "densenet40": (StudySource("cifar10-densenet40").load().model, (3, 32, 32), 1.05),
        "mobilenet_v2": (
            lambda: torchvision.models.mobilenet_v2(weights=None, num_classes=10),
            (3, 64, 64),
            1.10,
        ),
    }


def sgd(module: nn.Module) -> torch.optim.SGD:
    """The optimiser of all steps."""
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


class Bench:
    """One network at one share of kept filters, and the ways to train a mini-batch of it."""

    def __init__(
        self, build: Callable[[], nn.Module], shape: tuple[int, ...], keep: float, device: str
    ) -> None:
        self.device = device
        batch = SMALL if device == "cpu" else LARGE_BATCH
        self.inputs = torch.randn(batch, *shape, device=device)
        self.targets = torch.randint(10, (batch,), device=device)
        self.network = self.droppable(build)
        groups = self.network.groups
        self.counts = kept_counts([1 - keep] * len(groups), groups)
        trainer = DropoutTrainer(
            self.network,
            sgd(self.network.module),
            functional.cross_entropy,
            RandomMasks(),
            generator(0),
        )
        self.steps: dict[str, Step] = {
            "plain": self.plain(),
            "sub-network": lambda: trainer.step(self.inputs, self.targets, self.counts),
        }
        if keep < 1:
            self.steps["zero-masking"] = self.zero_masking(build)
            self.steps["rebuilding"] = self.rebuilding(build)

    def droppable(self, build: Callable[[], nn.Module]) -> DroppableNetwork:
        """A network whose filters can be dropped."""
        return DroppableNetwork(build().to(self.device), self.inputs[:2])

    def step(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """An ordinary training step."""
        loss: Tensor = functional.cross_entropy(module(self.inputs), self.targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    def plain(self) -> Step:
        """The step of a plain network of these widths, with tensors of its own."""
        channels = self.network.channels
        source = copy.deepcopy(self.network.module)
        small = SubNetwork(source, channels, self.counts, "none")
        small.load(small.select(self.mask(generator(1))))
        module = copy.deepcopy(small.module)
        optimizer = sgd(module)
        return lambda: self.step(module, optimizer)

    def zero_masking(self, build: Callable[[], nn.Module]) -> Step:
        """The full network, with the inputs of every layer masked by zeros."""
        network, masks = self.droppable(build), generator(0)
        optimizer = sgd(network.module)

        def step() -> None:
            handles = zero_dropped(network.module, network.channels, self.mask(masks))
            self.step(network.module, optimizer)
            for handle in handles:
                handle.remove()

        return step

    def rebuilding(self, build: Callable[[], nn.Module]) -> Step:
        """A smaller network and an optimiser without memory, built for this mini-batch."""
        network, masks = self.droppable(build), generator(0)
        workspace = Workspace(network.module, network.channels)

        def step() -> None:
            small = SubNetwork(network.module, network.channels, self.counts, "none", workspace)
            kept = small.select(self.mask(masks))
            small.load(kept)
            self.step(small.module, sgd(small.module))
            small.store(kept)

        return step

    def mask(self, masks: torch.Generator) -> Tensor:
        """Fresh masks."""
        return RandomMasks().draw(self.network.channels.widths, self.counts, masks)

    def seconds(self, step: Step) -> float:
        """Wall time of one step."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def ratios(self, turns: int) -> dict[str, list[float]]:
        """Time of each step over the plain one of its turn."""
        for _ in range(3):
            for step in self.steps.values():
                step()
        found: dict[str, list[float]] = {name: [] for name in self.steps if name != "plain"}
        for _ in range(turns):
            taken = {name: self.seconds(step) for name, step in self.steps.items()}
            for name, ratios in found.items():
                ratios.append(taken[name] / taken["plain"])
        return found


def extra_memory(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> float:
    """Most memory beside the full network and its optimiser, in sub-networks with gradients.

    Counted are all tensors at the steps of the optimiser, when gradients exist and activations
    don't, over the parameters, buffers, gradients and momentum of the widest vector's network.
    """
    inputs, targets = torch.randn(SMALL, *shape), torch.randint(10, (SMALL,))
    network = DroppableNetwork(build(), inputs[:2])
    optimizer = sgd(network.module)
    trainer = DropoutTrainer(
        network, optimizer, functional.cross_entropy, RandomMasks(), generator(0)
    )

    def vector(keep: float) -> KeptCounts:
        return kept_counts([1 - keep] * len(network.groups), network.groups)

    trainer.step(inputs, targets, network.full_counts)  # makes the full network's momentum
    optimizer.zero_grad(set_to_none=True)
    before, most = tensor_bytes(), 0

    def measure(*_: object) -> None:
        nonlocal most
        most = max(most, tensor_bytes() - before)

    hook = register_optimizer_step_pre_hook(measure)
    for keep in MEMORY_KEEPS:
        for _ in range(2):
            trainer.step(inputs, targets, vector(keep))
    hook.remove()
    small = network.subnetwork(vector(MEMORY_KEEPS[-1])).module
    parameters = sum(tensor.numel() * tensor.element_size() for tensor in small.parameters())
    buffers = sum(tensor.numel() * tensor.element_size() for tensor in small.buffers())
    return most / (3 * parameters + buffers)


def tensor_bytes() -> int:
    """Bytes of all tensors alive, each storage once."""
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if issubclass(type(found), Tensor):  # isinstance() makes PyTorch's deprecated objects warn
            for tensor in (found, found.grad if found.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--turns", type=int, default=30)
    arguments.add_argument("--networks", nargs="*", default=list(networks()))
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    given = arguments.parse_args()
    settings = {**settle(), "device": given.device}
    figures = []
    for name in given.networks:
        build, shape, goal = networks()[name]
        for keep in KEEPS:
            turns = given.turns * (5 if name == "digits-cnn" else 1)
            bench = Bench(build, shape, keep, given.device)
            for way, found in bench.ratios(turns).items():
                low, _, high = quantiles(found, n=4)
                own = way == "sub-network"
                figures.append(
                    Figure(
                        f"{name}, keep {keep}, {way}",
                        median(found),
                        "× plain",
                        (goal if given.device == "cpu" else 1.15) if own else None,
                        "lower",
                        {"turns": turns, "quartiles": f"{low:.3f} … {high:.3f}", **settings},
                    )
                )
        if given.device == "cpu":
            memory = extra_memory(build, shape)
            figures.append(
                Figure(
                    f"{name}, extra memory over a sub-network with gradients and momentum",
                    memory, "×", 1.0, "lower", {"vectors": len(MEMORY_KEEPS)},
                )
            )  # fmt: skip
    report(figures, given.json)


if __name__ == "__main__":
    main()
