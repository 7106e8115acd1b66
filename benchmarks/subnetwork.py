"""A training step of a sub-network over the same step of a plain dense network of its widths.

The sub-network's step draws fresh masks, gathers, runs forward, backward and the optimiser, and
scatters; the plain one runs forward, backward and the optimiser on a network that was built at
these widths. Both take turns, on one thread; each figure is the median of the ratios of neighbours.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.figures import Figure, parser, report
from distreal_dse.catalogue import StudySource
from distreal_dse.compat import torchvision
from distreal_dse.dropout import (
    DropoutTrainer,
    DroppableNetwork,
    RandomMasks,
    SubNetwork,
    kept_counts,
)
from distreal_dse.seeding import generator

KEEPS = (1.0, 0.75, 0.5, 0.25)
BATCH = 32


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


def seconds(step: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def ratios(
    build: Callable[[], nn.Module], shape: tuple[int, ...], keep: float, pairs: int
) -> list[float]:
    """Time of a sub-network's step over a plain step, for neighbouring steps."""
    inputs, targets = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))
    network = DroppableNetwork(build(), inputs[:2])
    counts = kept_counts([1 - keep] * len(network.groups), network.groups)
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.01, momentum=0.9)
    trainer = DropoutTrainer(
        network, optimizer, functional.cross_entropy, RandomMasks(), generator(0)
    )
    # A plain network has no scaling; tensors that a sub-network shares are copied with it.
    plain = copy.deepcopy(SubNetwork(network.module, network.channels, counts, "none").module)
    for module in plain.modules():
        for tensor in module._parameters.values():
            if tensor is not None:
                nn.init.normal_(tensor, std=0.05)
        for buffer in module._buffers.values():
            if buffer is not None and buffer.is_floating_point():
                buffer.fill_(1.0)
    plain_optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)

    def plain_step() -> None:
        loss: Tensor = functional.cross_entropy(plain(inputs), targets)
        plain_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        plain_optimizer.step()
        loss.item()

    def dropped_step() -> None:
        trainer.step(inputs, targets, counts)

    for _ in range(3):
        plain_step(), dropped_step()
    return [seconds(dropped_step) / seconds(plain_step) for _ in range(pairs)]


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--pairs", type=int, default=30)
    arguments.add_argument("--networks", nargs="*", default=list(networks()))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    figures = []
    for name in given.networks:
        build, shape, goal = networks()[name]
        for keep in KEEPS:
            pairs = given.pairs * (10 if name == "digits-cnn" else 1)
            found = ratios(build, shape, keep, pairs)
            low, _, high = quantiles(found, n=4)
            figures.append(
                Figure(
                    f"{name}, keep {keep}",
                    median(found),
                    "× plain",
                    goal,
                    "lower",
                    {"pairs": pairs, "quartiles": f"{low:.3f} … {high:.3f}"},
                )
            )
    report(figures, given.json)


if __name__ == "__main__":
    main()
