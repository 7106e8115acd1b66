"""Rounds whose cohort is trained at once, over the same rounds one device after the other.

Rounds of two runs take turns: same devices, samples, vectors and masks, random images. Figures are
medians of the ratios of neighbouring rounds, merging by the server included, evaluations not. The
cohort has 50 devices on a GPU, and 10 on a CPU, where nothing is to be gained and rounds are slow.

Beside them: how far the updates of a round lie apart, what a round takes in memory over what was
predicted, and the ways to train devices at once that there are: stacked by ``torch.vmap``, as this
package does; grouped convolutions by hand; and masked at full size, where devices of all kept
counts share one step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.cost import MacCost
from distreal_dse.dropout import Batch, DroppableNetwork, Part, StackedTrainer
from distreal_dse.study import Data, Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from fl.clients import Clients, InProcess, Task
from fl.cohort import Batched
from fl.engine import FederatedRun
from fl.results import State, Update
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy
from fl.world.availability import ConstantAvailability
from fl.world.exact import Seconds

IMAGES, BATCH = 64, 16  # of a device, and of a mini-batch: four mini-batches
COHORT = {"cuda": 50, "cpu": 10}
GOAL = 5.0  # on a GPU
SHAPES = {"digits-cnn": (1, 8, 8), "cifar10-resnet20": (3, 32, 32)}
# One vector for all; one for each class of devices; one for each mini-batch, its masks random.
STRATEGIES = ("fedavg", "heterofl", "distreal-uniform")
LEVELS = 5  # vectors of a turn where masked training is looked at


class Timed(Clients):
    """Trains as others do, and remembers how long that took."""

    def __init__(self, clients: Clients) -> None:
        self._clients, self.seconds = clients, 0.0

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        """Train them."""
        where = next(iter(state.values())).device
        start = clock(where)
        found = self._clients.train(tasks, state, round_number, now, deadline)
        self.seconds = clock(where) - start
        return found


def clock(device: torch.device) -> float:
    """Seconds of the wall on a GPU, and on a CPU of this process, whatever else runs there."""
    wait(device)
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def wait(device: torch.device) -> None:
    """Wait for what was begun on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def study_of(name: str, devices: int) -> Study:
    """A shipped study with random images, ``IMAGES`` for each device."""
    own, shape = StudySource(name).load(), SHAPES[name]

    def part(size: int, stream: str) -> TensorDataset:
        draws = generator(0, stream)
        images = torch.randn((size, *shape), generator=draws)
        return TensorDataset(images, torch.randint(10, (size,), generator=draws))

    def data() -> Data:
        return Data(part(IMAGES * devices, "train"), part(64, "other"), part(64, "other"))

    return Study(model=own.model, data=data, batch_size=BATCH, name=name)


def begun(name: str, strategy: str, device: str, rounds: int) -> FederatedRun:
    """A run on devices of three speeds, evaluated before and behind what is timed."""
    cohort = COHORT[device]
    settings = RunSettings(
        rounds=rounds + 2,
        devices=2 * cohort,
        cohort=cohort,
        evaluate_every=rounds + 2,
        availability=ConstantAvailability(),
    )
    study = study_of(name, 2 * cohort)
    network, data = prepare(study, settings.seed, device)
    macs = MacCost(network.channels)
    context = StrategyContext(network, None, macs, 0.25 * macs.full, study)
    return FederatedRun(study, data, network, make_strategy(strategy, context), None, settings)


def seconds_of(rounds: Iterator[object], device: torch.device) -> float:
    """Seconds of the next round."""
    return seconds(lambda: next(rounds), device)


def rounds_per_minute(name: str, strategy: str, device: str, rounds: int) -> list[Figure]:
    """Ratio of the two ways, and what of a batched round is the server's."""
    one, other = (begun(name, strategy, device, rounds + 1) for _ in range(2))
    where = next(one.network.module.parameters()).device
    batched = Timed(Batched(other.training))
    alone, at_once = one.rounds(InProcess(one.training)), other.rounds(batched)
    pairs, shares = [], []
    for number in range(rounds + 2):
        pair = seconds_of(alone, where), seconds_of(at_once, where)
        if number > 1:  # after the evaluation, and a round that builds sub-networks
            pairs.append(pair)
            shares.append(1 - batched.seconds / pair[1])
    settings = {"cohort": COHORT[device], "mini-batches": f"{IMAGES // BATCH} of {BATCH}",
                "rounds": rounds, "device": device}  # fmt: skip
    what = f"{name}, {strategy}"
    ratio = median(a / b for a, b in pairs)
    goal = GOAL if device == "cuda" else None
    return [
        Figure(f"{what}: rounds per minute, at once over one by one", ratio, "×", goal, "higher",
               {**settings, "one round at once": f"{median(b for _, b in pairs):.3g} s"}),
        Figure(f"{what}: share of the server in a round at once", 100 * median(shares), "%", None,
               "lower", settings),
    ]  # fmt: skip


def agreement(name: str, device: str) -> list[Figure]:
    """How far the updates of one round lie apart, and memory over what was predicted."""
    run = begun(name, "heterofl", device, 1)
    state = run.checkpoint().state
    devices = run.settings.population()[: COHORT[device]]
    tasks = [Task(one, torch.arange(IMAGES) + IMAGES * one.index) for one in devices]
    batched = Batched(run.training)
    batched.train(tasks, state, 1, 0.0, 1e12)
    wait(next(iter(state.values())).device)
    figures = []
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    found = batched.train(tasks, state, 1, 0.0, 1e12)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() - before
        said = batched.predicted(tasks, 1, 0.0, 1e12)
        figures.append(
            Figure(f"{name}, heterofl: memory of a round over what was predicted", peak / said,
                   "×", 1.0, "lower", {"predicted": f"{said / 2**20:.0f} MiB"})
        )  # fmt: skip
    expected = InProcess(run.training).train(tasks, state, 1, 0.0, 1e12)
    names = [name for name, one in state.items() if one.is_floating_point()]
    apart = []
    for one, like in zip(found, expected, strict=True):
        a, b = (torch.cat([u.state[n].flatten().double() for n in names]) for u in (one, like))
        apart.append(float((a - b).norm() / b.norm()))
    return [
        *figures,
        Figure(f"{name}, heterofl: updates of a round apart, the furthest", max(apart), "", 1e-5,
               "lower", {"single precision": "without TF32", "device": device}),
    ]  # fmt: skip


def ways(name: str, device: str, turns: int) -> list[Figure]:
    """A step of all devices at once, in several ways, over a loop of plain steps."""
    many = COHORT[device]
    study = study_of(name, 1)
    network, _ = prepare(study, 0, device)
    where = next(network.module.parameters()).device
    shape = (many, BATCH, *SHAPES[name])
    inputs = torch.randn(shape, generator=generator(0, "inputs")).to(where)
    targets = torch.zeros(many, BATCH, dtype=torch.int64, device=where)
    batch = Batch(inputs, targets)
    full = network.full_counts
    half = tuple(max(1, width // 2) for width in full)
    trainer = StackedTrainer(
        network, study.optimizer(network.module.parameters()), network.copy_state(), many
    )

    def objective(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return study.loss(module(inputs), targets)

    def stacked(counts: tuple[int, ...], parts: int) -> Callable[[], object]:
        mask = torch.cat([torch.arange(w) < c for w, c in zip(full, counts, strict=True)])
        places = [one.tolist() for one in torch.arange(many).chunk(parts)]

        def step() -> None:
            for rows in places:
                part = Part(rows, torch.tensor(rows, device=where))
                own = Batch(inputs[rows], targets[rows]) if parts > 1 else batch
                masks = mask.to(where).expand(len(rows), -1)
                trainer.step(part, own, counts, masks, objective)

        return step

    def looped() -> None:
        module = network.module
        optimizer = study.optimizer(module.parameters())
        for row in range(many):
            optimizer.zero_grad()
            study.loss(module(inputs[row]), targets[row]).backward()
            optimizer.step()

    tried = {"stacked by vmap": stacked(full, 1)}
    if (grouped := grouped_step(network, study, batch)) is not None:
        tried["grouped by hand"] = grouped
    split = stacked(half, LEVELS)
    found: dict[str, list[float]] = {name: [] for name in (*tried, "masked")}
    for turn in range(turns + 1):
        plain = seconds(looped, where)
        own = {way: seconds(step, where) for way, step in tried.items()}
        sub_networks = seconds(split, where)
        if turn:
            for way, took in own.items():
                found[way].append(took / plain)
            found["masked"].append(own["stacked by vmap"] / sub_networks)
    settings = {"devices": many, "samples": BATCH, "turns": turns, "device": device}
    figures = [
        Figure(f"{name}: a step of all, {way} over a loop of plain steps", median(found[way]), "×",
               None, "lower", settings)
        for way in tried
    ]  # fmt: skip
    figures.append(
        Figure(f"{name}: a step of all at full size over {LEVELS} of half the filters",
               median(found["masked"]), "×", None, "lower", settings)
    )  # fmt: skip
    return figures


def seconds(code: Callable[[], object], device: torch.device) -> float:
    """Seconds of some code."""
    start = clock(device)
    code()
    return clock(device) - start


def grouped_step(
    network: DroppableNetwork, study: Study, batch: Batch
) -> Callable[[], object] | None:
    """A step of a plain sequence of layers by grouped convolutions; None for other networks."""
    many = len(batch.inputs)
    layers: list[nn.Module] = []
    for layer in network.module.modules():
        if next(layer.children(), None) is not None:
            continue
        if isinstance(layer, nn.Conv2d) and layer.groups == 1:
            layers.append(
                nn.Conv2d(many * layer.in_channels, many * layer.out_channels,
                          layer.kernel_size, layer.stride, layer.padding, groups=many,  # type: ignore[arg-type]
                          bias=layer.bias is not None)
            )  # fmt: skip
        elif isinstance(layer, nn.BatchNorm2d):
            layers.append(nn.BatchNorm2d(many * layer.num_features))
        elif isinstance(layer, nn.ReLU | nn.MaxPool2d | nn.AdaptiveAvgPool2d | nn.Flatten):
            layers.append(layer)
        elif isinstance(layer, nn.Linear):
            layers.append(_Linears(many, layer.in_features, layer.out_features))
        else:
            return None
    if not isinstance(network.module, nn.Sequential):
        return None
    module = nn.Sequential(*layers).to(batch.inputs.device)
    optimizer = study.optimizer(module.parameters())
    inputs = batch.inputs.transpose(0, 1).flatten(1, 2)  # [N, devices · channels, …]
    targets = batch.targets.T.flatten()

    def step() -> None:
        optimizer.zero_grad()
        outputs = module(inputs)
        (many * study.loss(outputs.flatten(0, 1), targets)).backward()
        optimizer.step()

    return step


class _Linears(nn.Module):
    """A linear layer for each device, on features [N, devices · features]."""

    def __init__(self, many: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(many, inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(many, 1, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Outputs, shape [N, devices, outputs]."""
        by_device = features.view(len(features), len(self.weight), -1).transpose(0, 1)
        return torch.baddbmm(self.bias, by_device, self.weight).transpose(0, 1)


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--device", choices=tuple(COHORT), default="cpu")
    arguments.add_argument("--rounds", type=int, help="timed rounds; default 5 on a GPU, else 3")
    arguments.add_argument("--cohort", type=int, help="devices of a round")
    given = arguments.parse_args()
    machine, device = settle(), given.device
    COHORT[device] = given.cohort or COHORT[device]
    rounds = given.rounds or (5 if device == "cuda" else 3)
    figures = []
    for name in SHAPES:
        # ResNet-20 takes a minute on a CPU for what a GPU takes a second for.
        few = device == "cpu" and name != "digits-cnn"
        for strategy in STRATEGIES[:: 2 if few else 1][: 1 if few else None]:
            figures += rounds_per_minute(name, strategy, device, 1 if few else rounds)
        figures += ways(name, device, 1 if few else 2 * rounds)
    torch.backends.cudnn.allow_tf32 = False
    for name in SHAPES:
        if device == "cuda" or name == "digits-cnn":
            figures += agreement(name, device)
    for one in figures:
        one.settings.update(machine)
    report(figures, given.json)


if __name__ == "__main__":
    main()
