"""What hostile devices cost: attack × defence × strategy on digits.

A fifth of the devices are hostile, drawn by the seed; all devices take part in every round. Runs of
a seed share split, traces, initial weights and hostile devices, so accuracies are compared by seed
with those of the same strategy without attack and defence. What is given is the settled accuracy
that is lost, in points, with an interval that holds for all strategies and defences of an attack
together (Student, Bonferroni).

The attacks: ``reversed`` sends the change × (−10), ``labels`` trains on labels in reverse order
(0 for 9), ``noise`` sends Gaussian noise with ten times the norm of the change, ``variances`` sends
running variances × 10¹². The last is judged with averaged statistics, as it does nothing to an
accuracy whose statistics are measured again. The first three stay below what the server refuses
anyway.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from distreal_dse.cost import MacCost
from distreal_dse.data.batches import fetch, size_of
from distreal_dse.fronts import Front, find_front, open_database
from distreal_dse.search import SearchSettings, search
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from distreal_dse.support.seeding import generator
from distreal_dse.support.specs import split_specs
from fl.averaging import is_statistic
from fl.client import VirtualTraining
from fl.clients import Clients, InProcess, Task
from fl.compare.paired import simultaneous
from fl.compare.settled import settled_accuracy
from fl.compare.summaries import Estimate
from fl.engine import FederatedRun
from fl.results import State, Update
from fl.robust import make_defence
from fl.settings import RunSettings
from fl.strategies import StrategyContext, make_strategy
from fl.world.deadlines import RoundRules
from fl.world.exact import Seconds

STUDY = "digits-cnn"
STRATEGIES = ("fedavg", "heterofl", "nested", "distreal")
DEFENCES = ("none", "median", "trimmed-mean", "krum", "multi-krum", "clip")
ATTACKS = ("nobody", "reversed", "labels", "noise", "variances")
TIMES, FACTOR = -10.0, 1e12
GOAL = 3.0  # points that `reversed` may cost with the best defence

Harm = Callable[[State, Update, torch.Generator], Update]


def reversed_change(state: State, update: Update, random: torch.Generator) -> Update:
    """The change of what is learned, times −10."""
    return _with(update, {
        name: (state[name].double() + TIMES * (update.state[name].double() - state[name].double()))
        .to(state[name].dtype)
        for name in _learned(state)
    })  # fmt: skip


def noise(state: State, update: Update, random: torch.Generator) -> Update:
    """Gaussian noise on all that is learned, with ten times the norm of the change."""
    names = _learned(state)
    changes = [update.state[name].double() - state[name].double() for name in names]
    norm = float(torch.stack([one.square().sum() for one in changes]).sum().sqrt())
    drawn = [torch.randn(one.shape, generator=random, dtype=torch.float64) for one in changes]
    length = float(torch.stack([one.square().sum() for one in drawn]).sum().sqrt())
    return _with(update, {
        name: (state[name].double() + one * (abs(TIMES) * norm / length)).to(state[name].dtype)
        for name, one in zip(names, drawn, strict=True)
    })  # fmt: skip


def variances(state: State, update: Update, random: torch.Generator) -> Update:
    """Running variances × 10¹²."""
    return _with(update, {
        name: tensor * FACTOR
        for name, tensor in update.state.items() if name.endswith("running_var")
    })  # fmt: skip


HARMS: Mapping[str, Harm] = {"reversed": reversed_change, "noise": noise, "variances": variances}


class Attacked(Clients):
    """Trains as the clients that it wraps do, and lets hostile devices spoil what they send.

    Parameters
    ----------
    training
        The run's common part.
    hostile
        Indices of the hostile devices.
    attack
        One of `ATTACKS`.
    """

    def __init__(self, training: VirtualTraining, hostile: frozenset[int], attack: str) -> None:
        self._honest, self._hostile, self._seed = InProcess(training), hostile, training.seed
        self._harm = HARMS.get(attack)
        self._spoilt = InProcess(_flipped(training)) if attack == "labels" else self._honest

    def train(
        self,
        tasks: Sequence[Task],
        state: State,
        round_number: int,
        now: Seconds,
        deadline: Seconds,
    ) -> list[Update]:
        """Train one after the other."""
        updates = []
        for task in tasks:
            hostile = task.device.index in self._hostile
            clients = self._spoilt if hostile else self._honest
            (update,) = clients.train([task], state, round_number, now, deadline)
            if hostile and self._harm is not None:
                random = generator(self._seed, "attack", task.device.index, round_number)
                update = self._harm(state, update, random)
            updates.append(update)
        return updates


def _flipped(training: VirtualTraining) -> VirtualTraining:
    inputs, labels = fetch(training.dataset, torch.arange(size_of(training.dataset)))
    flipped = labels.max() - labels
    return replace(training, dataset=TensorDataset(inputs, flipped), labels=flipped)


def _learned(state: State) -> list[str]:
    return [n for n, old in state.items() if old.is_floating_point() and not is_statistic(n)]


def _with(update: Update, tensors: Mapping[str, Tensor]) -> Update:
    return replace(update, state={**update.state, **tensors})


@dataclass(frozen=True)
class World:
    """What all runs share.

    Parameters
    ----------
    devices, hostile
        Devices in all, which all take part in every round, and hostile ones among them.
    rounds
        Of each run.
    rate
        Learning rate of devices.
    """

    devices: int
    hostile: int
    rounds: int
    rate: float

    def accuracy(
        self,
        front: Front | None,
        strategy: str,
        attack: str,
        defence: str,
        averaged: bool,
        seed: int,
    ) -> float:
        """Settled accuracy of a run; only ``distreal`` needs a front."""
        source = StudySource(STUDY).load()
        network, data = prepare(source, seed)
        macs = MacCost(network.channels)
        settings = RunSettings(
            rounds=self.rounds,
            devices=self.devices,
            cohort=self.devices,
            local_epochs=2,
            seed=seed,
            evaluate_every=max(1, self.rounds // 20),
            statistics="averaged" if averaged else "all",
            robust=make_defence(defence),
            pace=1.6,
            rules=RoundRules(deadline=1.0),
        )
        slowest = min(device.speed for device in settings.population())
        weakest = slowest * settings.availability.mean_share() * settings.pace
        context = StrategyContext(network, front, macs, macs.full * min(1.0, weakest), source)
        made = make_strategy(f"{strategy}:lr={self.rate:g}", context)
        run = FederatedRun(source, data, network, made, front, settings)
        drawn = torch.randperm(self.devices, generator=generator(seed, "hostile"))
        hostile = frozenset(drawn[: self.hostile].tolist())
        return settled_accuracy(list(run.rounds(Attacked(run.training, hostile, attack))))


def searched_front(trials: int) -> Front:
    """A front of this study for `distreal`."""
    settings = SearchSettings(StudySource(STUDY), trials=trials)
    with tempfile.TemporaryDirectory() as folder:
        front = search(settings, f"sqlite:///{Path(folder) / 'search.db'}")
    assert front is not None
    return front


def stored_front(path: Path) -> Front:
    """A front that `distreal-dse front export` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        return find_front(open_database(f"sqlite:///{Path(folder) / 'none.db'}"), str(path))


Lost = dict[tuple[str, str, str], list[float]]


def measure(
    world: World,
    front: Front,
    strategies: Sequence[str],
    attacks: Sequence[str],
    defences: Sequence[str],
    seeds: int,
) -> tuple[Lost, dict[tuple[str, bool], list[float]]]:
    """Points lost by (attack, strategy, defence), and accuracies to lose them from; by seed."""
    lost: Lost = {}
    bases: dict[tuple[str, bool], list[float]] = {}
    for seed in range(seeds):
        for attack in attacks:
            averaged = attack == "variances"
            for strategy in strategies:
                base = bases.setdefault((strategy, averaged), [])
                if len(base) == seed:
                    base.append(world.accuracy(front, strategy, "nobody", "none", averaged, seed))
                for defence in defences:
                    start = time.perf_counter()
                    if (attack, defence) == ("nobody", "none"):
                        continue
                    found = world.accuracy(front, strategy, attack, defence, averaged, seed)
                    cell = lost.setdefault((attack, strategy, defence), [])
                    cell.append(100 * (base[seed] - found))
                    print(
                        f"seed {seed}, {attack}, {strategy}, {defence}: {found:.3f} "
                        f"(base {base[seed]:.3f}, {time.perf_counter() - start:.1f} s)",
                        file=sys.stderr,
                    )
    return lost, bases


def intervals(lost: Lost) -> dict[tuple[str, str, str], Estimate]:
    """Means with intervals that hold for all cells of an attack together."""
    cells = {attack: sum(key[0] == attack for key in lost) for attack, _, _ in lost}
    return {key: simultaneous(values, cells[key[0]]) for key, values in lost.items()}


def best_defence(found: Mapping[tuple[str, str, str], Estimate], attack: str) -> str:
    """The one whose worst strategy loses least."""
    defences = {key[2] for key in found if key[0] == attack}
    return min(
        sorted(defences),
        key=lambda one: max(e.mean for key, e in found.items() if key[::2] == (attack, one)),
    )


def markdown(
    found: Mapping[tuple[str, str, str], Estimate], bases: Mapping[tuple[str, bool], list[float]]
) -> str:
    """The table of the documentation."""
    strategies = list(dict.fromkeys(strategy for strategy, _ in bases))
    lines = [
        "| attack | defence | " + " | ".join(f"`{name}`" for name in strategies) + " |",
        "| --- " * (2 + len(strategies)) + "|",
    ]
    for averaged in sorted({key[1] for key in bases}):
        accuracies = [fmean(bases[strategy, averaged]) for strategy in strategies]
        how = "nobody, averaged statistics" if averaged else "nobody"
        lines.append(
            f"| {how} | none: accuracy | "
            + " | ".join(f"{100 * a:.1f} %" for a in accuracies)
            + " |"
        )
    for attack, defence in dict.fromkeys((key[0], key[2]) for key in found):
        cells = []
        for strategy in strategies:
            one = found[attack, strategy, defence]
            cells.append(f"{one.mean:.1f} ± {one.high - one.mean:.1f}")
        lines.append(f"| {attack} | {defence} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="six rounds and two seeds")
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--devices", type=int, default=20)
    arguments.add_argument("--hostile", type=int, help="of the devices; by default a fifth")
    arguments.add_argument("--rate", type=float, default=0.1, help="learning rate of devices")
    arguments.add_argument("--attacks", default=",".join(ATTACKS), help="some of them")
    arguments.add_argument("--defences", default=",".join(DEFENCES), help="some of them, or others")
    arguments.add_argument("--strategies", default=",".join(STRATEGIES), help="some, or others")
    arguments.add_argument("--front", type=Path, help="exported front; else one is searched")
    arguments.add_argument("--markdown", action="store_true", help="print the table of the docs")
    given = arguments.parse_args()
    attacks, defences = given.attacks.split(","), given.defences.split(",")
    if odd := set(attacks).difference(ATTACKS):
        arguments.error(f"--attacks: expected some of {', '.join(ATTACKS)}, found {', '.join(odd)}")
    for defence in defences:
        make_defence(defence)
    machine = settle()
    rounds, seeds = (6, 2) if given.quick else (given.rounds, given.seeds)
    hostile = given.devices // 5 if given.hostile is None else given.hostile
    front = stored_front(given.front) if given.front else searched_front(8 if given.quick else 30)
    world = World(given.devices, hostile, rounds, given.rate)
    strategies = split_specs(given.strategies)
    lost, bases = measure(world, front, strategies, attacks, defences, seeds)
    found = intervals(lost)
    if given.markdown:
        print(markdown(found, bases))
        return
    settings = {"hostile": f"{hostile} of {given.devices}", "rounds": rounds, "seeds": seeds,
                "lr": given.rate, **machine}  # fmt: skip
    figures = [
        Figure(f"{strategy}, {'averaged statistics, ' if averaged else ''}accuracy without attack",
               100 * fmean(values), "%", None, "higher", settings)
        for (strategy, averaged), values in bases.items()
    ]  # fmt: skip
    best = best_defence(found, "reversed") if "reversed" in attacks else None
    for (attack, strategy, defence), one in found.items():
        judged = attack == "reversed" and defence == best
        figures.append(
            Figure(
                f"{attack}, {strategy}, {defence}: accuracy lost",
                one.mean,
                "points",
                GOAL if judged else None,
                "lower",
                {**settings, "interval": f"{one.low:.2f} … {one.high:.2f}",
                 "by seed": [round(value, 2) for value in lost[attack, strategy, defence]]},
            )
        )  # fmt: skip
    report(figures, given.json)


if __name__ == "__main__":
    main()
