"""Strategies of other packages: the one of the documentation, and those that are broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from command_line import run
from distreal_dse import Data, Study
from distreal_dse.cost import MacCost
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError
from fl.engine import FederatedRun
from fl.settings import RunSettings
from fl.store.execution import begin_run, carry_out
from fl.store.runs import list_runs, load_run
from fl.store.specs import RunSpec
from fl.strategies import (
    StrategyContext,
    built_in_strategies,
    check_strategy,
    describe_strategies,
    make_strategy,
    strategy_names,
)
from fl.testing import StrategyContract

DOCS = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
SMALL = ("--rounds", "2", "--devices", "6", "--cohort", "3", "--seeds", "1")

BROKEN = '''
from distreal_dse.support.specs import number
from fl.strategies import FedAvg, FixedPlan, Setting, Strategy, Vector


class Plain:
    name = "plain"


class Misnamed(FedAvg):
    name = "other"


class Clash(FedAvg):
    name = "small"


class Twice(FedAvg):
    name = "twice"


class Whenever(FedAvg):
    name, chosen = "whenever", "per epoch"


class Masks(FedAvg):
    name, masks = "masks", "shuffled"


class Mean(FedAvg):
    name, averaging = "mean", "mean"


class Listed(FedAvg):
    name, settings = "listed", ["share"]


class Common(FedAvg):
    name, settings = "common", {"lr": Setting(number)}


class Upper(FedAvg):
    name, settings = "upper", {"Share": Setting(number)}


class Bare(FedAvg):
    name, settings = "bare", {"share": number}


class Unread(FedAvg):
    """Its setting is read by a function of one argument."""

    name, settings = "unread", {"share": Setting(float)}


class Untaken(FedAvg):
    name, settings = "untaken", {"keep-share": Setting(number)}


class Needy(FedAvg):
    name, settings = "needy", {"share": Setting(number)}

    def __init__(self, context, share):
        super().__init__(context)


class Raising(FedAvg):
    name = "raising"

    def __init__(self, context):
        raise KeyError("budget")


class Made(FedAvg):
    name = "made"

    @classmethod
    def make(cls, context, **settings):
        return "made"


class Networkless(FedAvg):
    name = "networkless"

    def network(self, full):
        return full.module


class Neither(Strategy):
    name = "neither"


class Unplanned(FedAvg):
    name = "unplanned"

    def plan(self, device, round_number, budget, seed):
        return self.context.full


class Maskless(FedAvg):
    name = "maskless"

    def plan(self, device, round_number, budget, seed):
        return FixedPlan(self.pick(budget), "random")


class Hyphened(FedAvg):
    """Takes a setting of two words."""

    name, settings = "hyphened", {"keep-share": Setting(number)}

    def __init__(self, context, keep_share=1.0):
        super().__init__(context)
        self.keep_share = keep_share


class TooMany(FedAvg):
    name = "too-many"

    def pick(self, budget):
        return Vector((99, 99), 1.0)


class Free(FedAvg):
    name = "free"

    def pick(self, budget):
        return Vector(self.context.full.kept_counts, 0.0)


class Half(FedAvg):
    name = "half"

    def aggregate(self, state, updates, channels):
        merged = super().aggregate(state, updates, channels)
        return {name: tensor.half() for name, tensor in merged.items()}


class Lossy(FedAvg):
    name = "lossy"

    def aggregate(self, state, updates, channels):
        return dict(list(state.items())[1:])


class Silent(FedAvg):
    name = "silent"

    def aggregate(self, state, updates, channels):
        pass


class Failing(FedAvg):
    name = "failing"

    def aggregate(self, state, updates, channels):
        return updates[1].state
'''
# By name: what refuses a class, or the settings that are given.
DECLARED_WRONG = {
    "gone": "its plug-in no_such_module:Any of broken fails: ModuleNotFoundError",
    "missing": "its plug-in broken:Nothing of broken fails: AttributeError: .*Nothing",
    "number": "expected a subclass of fl.strategies.Strategy, found function; mend",
    "plain": "expected a subclass of fl.strategies.Strategy, found Plain; mend",
    "misnamed": "expected the name 'misnamed', as its entry point, found 'other'",
    "small": "expected one of this name, found the built-in one and plug-in broken:Clash of broken",
    "twice": "expected one of this name, found another and plug-in .*; rename the plug-in, or unin",
    "whenever": "expected chosen to be per run or per round or per mini-batch, found 'per epoch'",
    "masks": "its masks or averaging fails: InputError: mask policy 'shuffled': expected one of",
    "mean": "its masks or averaging fails: InputError: averaging 'mean': expected one of",
    "listed": "expected settings by name, found list",
    "common": "expected no setting 'lr' of its own, found one, and all take that",
    "upper": "expected settings of lower-case letters, digits and -, found 'Share'",
    "bare": "expected setting 'share' to be a Setting, found function",
    "unread:share=1": "its settings fail: TypeError: float expected at most 1 argument",
    "untaken:keep-share=1": "expected settings that its constructor takes, found got an unexpected",
    "needy": "expected settings that its constructor takes, found missing a required argument: 'sh",
}
# What shows when a run is begun.
BEHAVING_WRONG = {
    "raising": "its plug-in fails: KeyError: 'budget'",
    "made": r"expected its make\(\) to return a Strategy, found str",
    "networkless": r"expected network\(\) to return a DroppableNetwork, found Sequential",
    "neither": r"pick\(\) fails: NotImplementedError: Neither has neither pick",
    "unplanned": r"expected plan\(\) to return a LocalPlan, found Vector; mend the strategy",
    "maskless": "expected masks of a plan to be a MaskPolicy, found str; mend",
    "too-many": r"pick\(\) fails: VectorError: .*99",
    "free": "expected a finite cost above 0 of a vector, found 0; mend",
    "half": r"expected aggregate\(\) to keep names, shapes and types, found .* as torch.float16",
    "lossy": r"expected aggregate\(\) to keep names.*, found 0.weight in one state only",
    "silent": r"expected aggregate\(\) to keep names, shapes and types, found NoneType",
    "failing": r"aggregate\(\) fails: IndexError: list index out of range; mend the strategy",
}


def install(folder: Path, package: str, module: str, entry_points: str) -> None:
    """Leave a package behind as pip does."""
    (folder / f"{package}.py").write_text(module)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    name = package.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def documented(language: str) -> str:
    """The first block of a language in the documentation of strategies of one's own."""
    section = DOCS.partition("## A strategy of your own\n")[2]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def documented_entry_points() -> str:
    """What pip makes of the table in the documented ``pyproject.toml``."""
    table = documented("toml").partition('[project.entry-points."distreal_dse.strategies"]\n')[2]
    name, _, value = table.partition("\n")[0].partition(" = ")
    return f"[distreal_dse.strategies]\n{name} = {value.strip(chr(34))}\n"


@pytest.fixture
def thrifty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of the documentation, installed; the folder that it is in."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    install(folder, "my_strategies", documented("python"), documented_entry_points())
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "broken-packages"
    folder.mkdir()
    classes = {
        "plain": "Plain", "misnamed": "Misnamed", "small": "Clash", "twice": "Twice",
        "whenever": "Whenever", "masks": "Masks", "mean": "Mean", "listed": "Listed",
        "common": "Common", "upper": "Upper", "bare": "Bare", "unread": "Unread",
        "untaken": "Untaken", "needy": "Needy", "raising": "Raising", "made": "Made",
        "networkless": "Networkless", "neither": "Neither", "unplanned": "Unplanned",
        "too-many": "TooMany", "free": "Free", "half": "Half", "lossy": "Lossy",
        "silent": "Silent", "failing": "Failing", "missing": "Nothing", "number": "number",
        "maskless": "Maskless", "hyphened": "Hyphened",
    }  # fmt: skip
    lines = [f"{name} = broken:{found}" for name, found in classes.items()]
    group = "[distreal_dse.strategies]\n"
    install(folder, "broken", BROKEN, group + "\n".join([*lines, "gone = no_such_module:Any\n"]))
    install(folder, "broken_too", "", group + "twice = broken_too:Twice\n")
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def begun(study: Study, data: Data, network: DroppableNetwork) -> Callable[[str], FederatedRun]:
    def begin(text: str) -> FederatedRun:
        macs = MacCost(network.channels)
        strategy = make_strategy(text, StrategyContext(network, None, macs, 0.3 * macs.full, study))
        return FederatedRun(study, data, network, strategy, None, RunSettings(devices=6, cohort=3))

    return begin


@pytest.mark.usefixtures("thrifty")
class TestDocumented(StrategyContract):
    """The tests of the documentation."""

    strategy = "thrifty:share=0.3"


@pytest.mark.usefixtures("thrifty")
def test_a_package_may_offer_a_strategy(begun: Callable[[str], FederatedRun]) -> None:
    assert strategy_names() == [*built_in_strategies(), "thrifty"]
    assert describe_strategies()["thrifty"].startswith("The dearest vector of one rate that fits a")
    check_strategy("thrifty:share=0.3,averaging=plain,lr=0.1,schedule=cosine", None)
    results = [list(begun(f"thrifty:share={share}").rounds()) for share in (0.3, 0.9)]
    shares = [one[-1].mean_cost_share for one in results]
    assert shares[0] is not None and shares[1] is not None and shares[0] < shares[1]
    for text, message in (
        ("thrifty:share=2", "share of thrifty: expected above 0 and at most 1, found 2"),
        ("thrifty:size=2", "expected the settings share, averaging, lr, .* found 'size'"),
        ("thrifti", "expected one of fedavg, .*nested, thrifty, found 'thrifti'; did you mean th"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            check_strategy(text, None)
        assert "\n" not in str(caught.value)


def test_a_run_of_a_plug_in_is_stored_and_goes_on_and_compared(
    thrifty: Path, spec: RunSpec, database: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(spec, strategy="thrifty:share=0.8", front=None)
    expected, stopped = begin_run(database, spec), begin_run(database, spec)
    carry_out(database, *expected)

    def stop(result: object) -> None:
        if getattr(result, "round", 0) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(database, *stopped, stop)
    monkeypatch.setenv("PYTHONPATH", f"{thrifty}", prepend=":")
    resume = ("fl", "resume", str(stopped[0]), "--study", spec.study)
    resumed = run(*resume, "--storage", url)
    assert resumed.code == 0, resumed.stderr
    rounds = [load_run(database, number[0]).rounds for number in (expected, stopped)]
    assert rounds[0] == rounds[1] and len(rounds[0]) == spec.rounds + 1
    names = "thrifty,thrifty:share=0.8,lr=0.1,small"
    command = ("fl", "compare", spec.study, *SMALL, "--strategies", names, "--name", "own")
    # A process of its own, and workers of theirs, find the package by themselves, too.
    compared = run(*command, "--workers", "2", "--storage", url, "--json", installed=True)
    assert compared.code == 0, compared.stderr
    found = [one["strategy"] for one in compared.json["strategies"]]
    assert found == ["thrifty", "thrifty:share=0.8,lr=0.1", "small"]
    assert "thrifty" in run("fl", "strategies").stderr
    every = ("fl", "compare", spec.study, "--strategies", "all", "--against", "thrifty")
    line = run(*every, "--storage", url).error(2)
    assert line.endswith("distreal-uniform, nested")  # without a front, distreal is nested


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("text", "message"), DECLARED_WRONG.items())
def test_a_plug_in_that_declares_no_strategy_is_refused(text: str, message: str) -> None:
    for refuse in (
        lambda: check_strategy(text, None),
        lambda: RunSpec("digits-cnn", strategy=text).check(),
    ):
        with pytest.raises(InputError, match=f"strategy '{text}': {message}") as caught:
            refuse()
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("broken")
def test_settings_of_several_words_are_arguments_with_underscores(
    begun: Callable[[str], FederatedRun],
) -> None:
    assert vars(begun("hyphened:keep-share=0.5").training.strategy)["keep_share"] == 0.5


@pytest.mark.usefixtures("broken")
def test_broken_plug_ins_are_listed_with_what_is_wrong() -> None:
    found = describe_strategies()
    assert found["plain"].startswith("can't be used: strategy 'plain': expected a subclass")
    assert found["small"].startswith("can't be used: ") and found["fedavg"].startswith("The full")
    assert not found["half"].startswith("can't be used")  # that shows when a run is begun


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(("text", "message"), BEHAVING_WRONG.items())
def test_a_plug_in_that_no_run_could_use_is_refused(
    text: str, message: str, begun: Callable[[str], FederatedRun]
) -> None:
    with pytest.raises(InputError, match=f"strategy '{text}': ({message})") as caught:
        begun(text)
    assert "\n" not in str(caught.value)


def test_nothing_is_trained_where_one_strategy_is_broken(
    broken: Path, spec: RunSpec, database: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{broken}", prepend=":")
    command = ("fl", "compare", spec.study, *SMALL, "--storage", url, "--name", "none")
    for names, message in (
        ("fedavg,half", "strategy 'half': expected aggregate() to keep names, shapes and types"),
        ("fedavg,plain", "strategy 'plain': expected a subclass of fl.strategies.Strategy"),
    ):
        line = run(*command, "--strategies", names).error(2)
        assert message in line
    assert list_runs(database, "none") == []
