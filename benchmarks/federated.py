"""What the engine of federated training costs beside the training itself.

Overhead: rounds of the engine and of a bare PyTorch loop that does the same client steps (load the
global state, train, copy the state, average), in turn; the figure is the median of the ratios of
neighbouring rounds. Population: memory and time of rounds with the same cohort, of 100 and of
10,000 devices with fluctuating resources. Evaluations are not counted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import psutil
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch, size_of
from distreal_dse.study import Data, Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from fl.engine import FederatedRun
from fl.server import select_cohort
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy
from fl.world.availability import ConstantAvailability, MarkovAvailability
from fl.world.devices import DeviceClass, make_devices
from fl.world.splits import split_iid

COHORT, EPOCHS, WARM_UP = 5, 1, 2
POPULATIONS = (100, 10_000)


def federated(study: Study, data: Data, settings: RunSettings, strategy: str) -> FederatedRun:
    """A run that is evaluated before it begins and after its last round alone."""
    network, _ = prepare(study, settings.seed)
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, macs.full, study)
    return FederatedRun(study, data, network, make_strategy(strategy, context), None, settings)


def timed(rounds: Iterator[object]) -> float:
    """Wall seconds of the next round."""
    start = time.perf_counter()
    next(rounds)
    return time.perf_counter() - start


def bare_rounds(study: Study, data: Data, settings: RunSettings) -> Iterator[None]:
    """FedAvg in plain PyTorch: the same cohorts, shards and orders as the engine's."""
    module = prepare(study, settings.seed)[0].module
    devices = make_devices(settings.devices, settings.classes)
    shards = split_iid(size_of(data.train), settings.devices, settings.seed)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for number in range(1, settings.rounds + 1):
        trained: list[tuple[int, dict[str, Tensor]]] = []
        for device in select_cohort(devices, settings.cohort, number, settings.seed):
            module.load_state_dict(state)
            optimizer = study.optimizer(module.parameters())
            order = generator(settings.seed, "order", device.index, number)
            shard = shards[device.index]
            for _ in range(settings.local_epochs):
                shuffled = shard[torch.randperm(len(shard), generator=order)]
                for batch in shuffled.split(study.batch_size):
                    train_batch(study, module, optimizer, data, batch)
            own = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            trained.append((len(shard), own))
        total = sum(samples for samples, _ in trained)
        for name, old in state.items():
            if old.is_floating_point():
                mean = torch.zeros_like(old, dtype=torch.float64)
                for samples, own in trained:
                    mean += own[name].double() * (samples / total)
                state[name] = mean.to(old.dtype)
        yield


def train_batch(
    study: Study, module: nn.Module, optimizer: torch.optim.Optimizer, data: Data, batch: Tensor
) -> None:
    """An ordinary training step."""
    inputs, targets = fetch(data.train, batch)
    loss = study.loss(module(inputs), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    loss.item()


def overhead(study: Study, data: Data, rounds: int) -> list[float]:
    """Wall time of rounds of the engine over those of the bare loop."""
    settings = RunSettings(
        rounds=WARM_UP + rounds + 1,
        devices=20,
        cohort=COHORT,
        local_epochs=EPOCHS,
        evaluate_every=WARM_UP + rounds + 1,
        classes=(DeviceClass("all", 1.0, 1.0),),
        availability=ConstantAvailability(),
    )
    engine = federated(study, data, settings, "fedavg-drop").rounds()
    bare = bare_rounds(study, data, settings)
    next(engine)  # round 0
    pairs = [(timed(engine), timed(bare)) for _ in range(WARM_UP + rounds)]
    return [one / other for one, other in pairs[WARM_UP:]]


def population(devices: int, rounds: int) -> tuple[float, float]:
    """Median wall seconds of a round, and the memory of the process after them in MB."""
    draws = generator(0)
    images = torch.randint(256, (2 * POPULATIONS[-1], 1, 8, 8), generator=draws).float() / 255
    labels = torch.randint(10, (len(images),), generator=draws)
    part = TensorDataset(images[:64], labels[:64])
    data = Data(TensorDataset(images, labels), part, part)
    settings = RunSettings(
        rounds=rounds + 1,
        devices=devices,
        cohort=COHORT,
        evaluate_every=rounds + 1,
        availability=MarkovAvailability(),
    )
    study = StudySource("digits-cnn").load()
    # As many samples per device, whatever the population.
    samples = 2 * POPULATIONS[-1] // POPULATIONS[-1] * devices
    data = Data(TensorDataset(images[:samples], labels[:samples]), part, part)
    run = federated(study, data, settings, "distreal-uniform").rounds()
    next(run)
    seconds = median(timed(run) for _ in range(rounds))
    # Not the peak of getrusage(), which a process inherits from the one that started it.
    return seconds, psutil.Process().memory_info().rss / 2**20


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--data", type=Path, help="CIFAR-10 as class folders; else digits alone")
    arguments.add_argument("--population", type=int, help=None)  # used by this program itself
    given = arguments.parse_args()
    machine = settle()
    if given.population:
        print(*population(given.population, given.rounds))
        return
    sources = {"digits-cnn": StudySource("digits-cnn")}
    if given.data:
        options = (("data", str(given.data)), ("subset", "4000"))
        sources["cifar10-resnet20"] = StudySource("cifar10-resnet20", options)
    figures = []
    for name, source in sources.items():
        study = source.load()
        # ResNet-20 takes minutes for what the digits take seconds for.
        rounds = given.rounds if name == "digits-cnn" else max(4, given.rounds // 5)
        ratios = overhead(study, study.data(), rounds)
        low, _, high = quantiles(ratios, n=4)
        settings = {"rounds": rounds, "cohort": COHORT, "quartiles": f"{low:.3f} … {high:.3f}"}
        figures.append(
            Figure(f"{name}, engine over a bare loop", median(ratios), "×", 1.05, "lower",
                   {**settings, **machine})
        )  # fmt: skip
    found = {}
    for devices in POPULATIONS:
        command = (sys.executable, "-m", "benchmarks.federated", "--population", str(devices))
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[devices] = [float(text) for text in done.stdout.split()]
    few, many = (found[devices] for devices in POPULATIONS)
    settings = {"devices": f"{POPULATIONS[1]} over {POPULATIONS[0]}", "cohort": COHORT, **machine}
    figures += [
        Figure("time of a round, large over small population", many[0] / few[0], "×", 1.2, "lower",
               settings),
        Figure("memory, large less small population", many[1] - few[1], "MB", 50, "lower",
               settings),
    ]  # fmt: skip
    report(figures, given.json)


if __name__ == "__main__":
    main()
