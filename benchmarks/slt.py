"""CPU time of rounds of the engine beside those of SLT's own loop, for the same work.

The authors of SLT published a loop with HeteroFL, FedRolex and Federated Dropout. Both it and the
engine train SLT's ResNet-20 on the same made-up images of CIFAR-10's shape. All devices take part
in each round, so each round is the same work: the same widths, mini-batches and optimiser. The
first round of each side is not timed. There, the operations that PyTorch carries out are counted,
and the benchmark stops unless both sides have the same multiply-accumulates and mini-batches.

The two take turns of one round, ABBA. A figure is the median over neighbouring rounds of the CPU
time of the engine over that of SLT. Evaluations, files and start-up are left out on both sides.

References
----------
Pfeiffer, Khalili, Henkel: Aggregating capacity in FL through successive layer training for
computationally-constrained devices, NeurIPS 2023; code: github.com/k1l1/SLT.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch
from distreal_dse.study import Data, Study
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from fl.engine import FederatedRun
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy
from fl.world.availability import ConstantAvailability
from fl.world.devices import DeviceClass
from fl.world.splits import split_iid

# By the engine's names: module, server and module of the cut of a sub-network in SLT's code.
SERVERS = {
    "heterofl": ("heterofl", "HeteroFLServer", "heterofl_submodel"),
    "fedrolex": ("fedrolex", "FedRolexServer", "fedrolex_submodel"),
    "federated-dropout": ("fd", "FederatedDropoutServer", "federated_dropout_submodel"),
}
CLASSES, BATCH_SIZE, SEED = 10, 32, 0  # SLT's CIFAR-10, and its fixed size of mini-batches
RATE, MOMENTUM, DECAY = 0.1, 0.9, 1e-3  # SLT's defaults
WIDTHS = "0.5/0.25/0.125"  # SLT's memory constraints for ResNets
# A budget this little above a width's cost fits it, and no wider one.
MARGIN = 1 + 1e-6


class Images(Dataset[Any]):
    """Made-up images of CIFAR-10's shape, one at a time, as SLT's data sets give theirs."""

    classes = list(range(CLASSES))
    train = True

    def __init__(self, count: int) -> None:
        draws = generator(SEED)
        self._images = torch.randn((count, 3, 32, 32), generator=draws)
        self._labels = torch.randint(CLASSES, (count,), generator=draws)
        self.targets = self._labels.tolist()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image and its class."""
        return self._images[index], self._labels[index]


@dataclass(frozen=True)
class Work:
    """What both sides do in a round.

    Parameters
    ----------
    widths
        Share of each layer's filters, by class of device.
    per_width
        Devices of each width; all take part in each round.
    images
        What each device holds, ≥ 1.
    """

    widths: tuple[float, ...]
    per_width: int
    images: int

    @property
    def devices(self) -> int:
        """Devices in all."""
        return len(self.widths) * self.per_width

    @property
    def mini_batches(self) -> int:
        """Mini-batches of a round."""
        return self.devices * -(-self.images // BATCH_SIZE)


Round = Callable[[], float]
"""Carries out the next round; returns its CPU seconds."""


def engine_rounds(
    work: Work, strategy: str, study: Study, rounds: int
) -> tuple[Round, FederatedRun]:
    """Return what carries out the next round of the engine, and the run."""
    network, data = prepare(study, SEED)
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, macs.full, study)
    levels = "/".join(map(str, work.widths))
    own = "rates=own" if strategy == "federated-dropout" else f"widths={levels}"
    budgets = [context.uniform(width).cost / macs.full * MARGIN for width in work.widths]
    classes = [
        DeviceClass(str(width), 1 / len(work.widths), budget)
        for width, budget in zip(work.widths, budgets, strict=True)
    ]
    settings = RunSettings(
        rounds=rounds + 1,  # the last one is evaluated, and not reached
        devices=work.devices,
        cohort=work.devices,
        seed=SEED,
        evaluate_every=rounds + 1,
        classes=tuple(classes),
        availability=ConstantAvailability(),
    )
    made = make_strategy(f"{strategy}:{own}", context)
    run = FederatedRun(study, data, network, made, None, settings)
    results = run.rounds()
    next(results)  # round 0
    return partial(engine_round, work, results), run


def engine_round(work: Work, results: Iterator[Any]) -> float:
    """Carry out the next round of the engine; return its CPU seconds."""
    start = time.process_time()
    result = next(results)
    seconds = time.process_time() - start
    merged = sum(one.outcome == "accepted" for one in result.devices)
    if (result.mini_batches, merged) != (work.mini_batches, work.devices):
        raise SystemExit(
            f"error: round {result.round} of the engine: expected {work.mini_batches} mini-batches "
            f"and {work.devices} merged updates, found {result.mini_batches} and {merged}"
        )
    return seconds


def slt_rounds(
    work: Work, strategy: str, images: Images, state: dict[str, Tensor], folder: str
) -> Round:
    """Return what carries out the next round of SLT's loop, from a state of the full network."""
    module, name, cut = SERVERS[strategy]
    base = getattr(importlib.import_module(f"algorithms.{module}"), name)
    network = importlib.import_module("nets.SubsetNets.resnet_cifar").ResNet20

    class Server(base):  # type: ignore[misc]
        """Goes on where the call of ``run`` before ended, and says when a round begins."""

        carried_out = 0
        began = 0.0

        def pre_round(self, round_n: int, rng: Any) -> Any:
            self.began = time.process_time()
            self.carried_out += 1
            return super().pre_round(self.carried_out, rng)

        def measure_accuracy(self, round_n: int) -> None:
            """Evaluate nothing."""
            self._measurements_dict["accuracy"].append([0.0, round_n])

        def save_dict_to_json(self, filename: str, input_dict: Any) -> None:
            """Write nothing."""

    class Split:
        is_plot = False

        def __call__(self, dataset: Any, devices: int) -> Sequence[Tensor]:
            return split_iid(len(dataset), devices, SEED)

    server = Server(folder)
    server.n_devices = server.n_devices_per_round = work.devices
    server.memory_constraints_list = [w for w in work.widths for _ in range(work.per_width)]
    server.torch_device, server.progress_output, server.n_rounds = "cpu", False, 1
    server.lr = server.lr_min = RATE
    server.set_seed(SEED)
    server.set_optimizer(torch.optim.SGD, {"weight_decay": DECAY, "momentum": MOMENTUM})
    submodel = importlib.import_module(f"utils.{cut}")
    server.extract_fnc = submodel.extract_submodel_resnet_structure
    server.split_f = Split()
    server.set_dataset(lambda path, train, transform: images, "", {}, None, None)
    own = [{"num_classes": CLASSES, "subset_factor": w} for w in server.memory_constraints_list]
    server.set_model([network] * work.devices, own)
    server.set_model_evaluation(network, {"num_classes": CLASSES, "subset_factor": 1.0})
    server.initialize()
    server._global_model = copy.deepcopy(state)

    def carry_out() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            server.run()
        return time.process_time() - server.began

    return carry_out


def counted(carry_out: Round) -> tuple[int, int]:
    """Carry out a round; return the training MACs and the mini-batches that PyTorch saw of it.

    Linear layers count forward alone: products of two matrices are also what merging by masks
    takes, so these are left out.
    """
    operations = FlopCounterMode(display=False)
    losses = 0
    plain = nn.functional.cross_entropy

    def cross_entropy(*arguments: Any, **options: Any) -> Tensor:
        nonlocal losses
        losses += 1
        return plain(*arguments, **options)

    nn.functional.cross_entropy = cross_entropy
    try:
        with operations:
            carry_out()
    finally:
        nn.functional.cross_entropy = plain
    found = operations.get_flop_counts()["Global"]
    return sum(flops for kind, flops in found.items() if kind != torch.ops.aten.mm) // 2, losses


def ratios(work: Work, strategy: str, rounds: int) -> tuple[list[float], list[float], int]:
    """Let both take turns.

    Returns
    -------
    list of float
        CPU time of rounds of the engine over those of SLT.
    list of float
        CPU seconds of SLT's rounds.
    int
        Training MACs of a round.
    """
    images = Images(work.devices * work.images)
    some = TensorDataset(*fetch(images, torch.arange(BATCH_SIZE)))  # evaluations have to have some
    resnet20 = importlib.import_module("nets.SubsetNets.resnet_cifar").ResNet20
    study = Study(
        model=partial(resnet20, num_classes=CLASSES),
        data=lambda: Data(images, some, some),
        # By its name at the time, as SLT's is, so that both are counted.
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs, targets),
        optimizer=partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY),
        batch_size=BATCH_SIZE,
        scaling="none",  # as in SLT
        name="slt-resnet20",
    )
    engine, run = engine_rounds(work, strategy, study, rounds + 1)
    state = {name: tensor.clone() for name, tensor in run.network.module.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'pin_memory' argument")  # which SLT sets without a GPU
        slt = slt_rounds(work, strategy, images, state, folder)
        ours, theirs = counted(engine), counted(slt)
        if ours != theirs or ours[1] != work.mini_batches:
            raise SystemExit(
                f"error: {strategy}: expected the same work of both, found {ours[0]} training MACs "
                f"in {ours[1]} mini-batches of the engine and {theirs[0]} in {theirs[1]} of SLT"
            )
        found = []
        for number in range(rounds):
            sides = (engine, slt) if number % 2 == 0 else (slt, engine)
            seconds = {side: side() for side in sides}
            found.append((seconds[engine], seconds[slt]))
    return [one / other for one, other in found], [other for _, other in found], ours[0]


def figure(work: Work, strategy: str, rounds: int, machine: dict[str, str]) -> Figure:
    """Measure a strategy."""
    found, slt, macs = ratios(work, strategy, rounds)
    low, _, high = quantiles(found, n=4)
    settings = {
        "rounds": rounds, "quartiles": f"{low:.3f} … {high:.3f}",
        "SLT": f"{median(slt):.3g} s", "devices": work.devices,
        "widths": "/".join(map(str, work.widths)), "mini-batches": work.mini_batches,
        "MACs": f"{macs:.3g}", **machine,
    }  # fmt: skip
    name = f"{strategy}, engine over SLT"
    return Figure(name, median(found), "×", 1.0, "lower", settings)


def shares(text: str) -> tuple[float, ...]:
    """Read widths such as 0.5/0.25.

    Raises
    ------
    argparse.ArgumentTypeError
        If one is none that SLT can cut.
    """
    with contextlib.suppress(ValueError):
        read = tuple(float(part) for part in text.split("/"))
        if all(1 / 16 <= width <= 1 for width in read):
            return read
    raise argparse.ArgumentTypeError(f"expected shares from 0.0625 to 1, such as {WIDTHS}")


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--checkout", type=Path, required=True, help="of github.com/k1l1/SLT")
    arguments.add_argument("--rounds", type=int, default=20, help="timed ones, 2 or more")
    arguments.add_argument("--strategies", default=",".join(SERVERS))
    arguments.add_argument("--widths", type=shares, default=WIDTHS)
    arguments.add_argument("--per-width", type=int, default=1, help="devices of each width")
    arguments.add_argument(
        "--images", type=int, default=500, help="of each device; SLT's share of CIFAR-10"
    )
    given = arguments.parse_args()
    if not (given.checkout / "algorithms" / "fd.py").is_file():
        arguments.error(f"--checkout {given.checkout}: expected one of SLT, found no algorithms")
    strategies = given.strategies.split(",")
    if unknown := set(strategies) - SERVERS.keys():
        arguments.error(
            f"--strategies: expected some of {', '.join(SERVERS)}, found "
            f"{', '.join(sorted(unknown))}"
        )
    if given.rounds < 2 or given.per_width < 1 or given.images < BATCH_SIZE:
        arguments.error(
            f"expected --rounds 2 or more, --per-width 1 or more, --images {BATCH_SIZE} or more"
        )
    sys.path.insert(0, str(given.checkout.resolve()))
    machine = settle()
    work = Work(given.widths, given.per_width, given.images)
    report([figure(work, one, given.rounds, machine) for one in strategies], given.json)


if __name__ == "__main__":
    main()
