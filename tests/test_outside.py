"""Whatever comes from outside is read, or refused in one line that people can use."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distreal_dse.budgets import budgets_of
from distreal_dse.dropout import make_policy
from distreal_dse.errors import DistrealError
from distreal_dse.fronts import LookupTable, check_front_name, export_front, import_front
from fl.robust import make_defence
from fl.schedules import make_schedule
from fl.server_optimizers import make_server_optimizer
from fl.store.specs import RunSpec, run_spec
from fl.strategies import check_strategy
from fl.world.availability import make_availability
from fl.world.availability.trace_file import read_trace
from fl.world.fleet import make_fleet
from fl.world.populations import LINK_FIELDS, read_links, read_speeds
from fl.world.splits import make_split
from front_examples import make_front

# Pieces that mean something somewhere, or are often read as something else.
PIECES = (
    "", " ", ",", ":", ";", "=", "/", "@", "%", "-", "+", "\n", "\t", "\0", "\\", '"', "'", "{",
    "0", "-0", "-1", "1", "0.5", "1e400", "-1e400", "1e-400", "nan", "inf", "-inf", "1_0", "0x10",
    "½", "１", "1/3", "1/0", "0/0", "9" * 400, "null", "true", "lr", "lr=0.1", "schedule", "cosine",
    "averaging=pooled", "levels=0", "alpha", "stay=2", "pace=0", "markov", "trace", "..", "~", "é",
    "\u202e", "\ud800", "None", "[]", "{}",
)  # fmt: skip
TEXTS: dict[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "fleet": (make_fleet, ("extreme", "a=0.5@1,b=1/2@1/4;markov:stay=0.5;pace=1.6")),
    "split": (make_split, ("iid", "dirichlet:alpha=3", "shards:classes=2", "by-class")),
    "availability": (make_availability, ("constant", "markov:stay=0.5,levels=0.5/1")),
    "masks": (make_policy, ("random", "core:core=0.75,redraw=5", "blocks:blocks=4")),
    "schedule": (make_schedule, ("cosine:end=0.02", "step:at=10/20,factor=0.1", "warm-up:5")),
    "server": (make_server_optimizer, ("replace", "adam:lr=0.1", "momentum:momentum=0.9")),
    "defence": (make_defence, ("none", "trimmed-mean:share=0.2", "multi-krum")),
    "strategy": (
        lambda text: check_strategy(text, None, 10),
        ("distreal:form=nested,levels=3", "heterofl:widths=1/0.5,lr=0.1", "fjord-kd:alpha=0.5"),
    ),
    "front name": (check_front_name, ("digits-cnn", "a.b_c+1")),
}  # fmt: skip


@st.composite
def altered(draw: st.DrawFn, valid: tuple[str, ...]) -> str:
    """A valid text with a few places exchanged, taken out or filled with something else."""
    text = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 6)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)))
        text = text[:start] + piece + text[end:]
    return text


def read_or_refused(read: Callable[[Any], object], given_to_it: Any) -> None:
    """Fail unless it is read, or refused by an error of ours of one line without controls."""
    try:
        read(given_to_it)
    except DistrealError as error:
        said = str(error)
        assert said and said.isprintable(), repr(said)
        assert len(said) < 20 * len(str(given_to_it)) + 1000


@pytest.mark.parametrize("kind", TEXTS)
@given(data=st.data())
@settings(max_examples=60)
def test_texts_are_read_or_refused(kind: str, data: st.DataObject) -> None:
    read, valid = TEXTS[kind]
    read_or_refused(read, data.draw(altered(valid)))


def lines_or_json(valid: str) -> st.SearchStrategy[bytes]:
    """Files: altered text, and bytes that are no text."""
    texts = altered((valid,)).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.one_of(texts, st.binary(max_size=40))


TRACE = "device,time,availability\n0,0,0.5\n0,10,1\n1,0,0.25\n1,5,0\n1,9,1\n"
LINKS = json.dumps({n: dict.fromkeys(LINK_FIELDS, n + 0.5) for n in (1, 2)})
SPEEDS = '[{"CPU_F_AI_Score": 3.5}, {"CPU_F_AI_Score": "1"}, {"CPU_F_AI_Score": null}]'
FILES: dict[str, tuple[Callable[[str], object], str]] = {
    "trace": (read_trace, TRACE),
    "speeds": (read_speeds, SPEEDS),
    "links": (read_links, LINKS),
}


@pytest.mark.parametrize("kind", FILES)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_files_are_read_or_refused(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    read, valid = FILES[kind]
    file = tmp_path / "outside"
    file.write_bytes(data.draw(lines_or_json(valid)))
    read_or_refused(read, str(file))


# Values that JSON may hold in place of any other.
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4),
    st.sampled_from([[], {}, [[]], 10**400, -1, 0, 1e308, "1", [None], {"a": {}}]),
)  # fmt: skip


@st.composite
def altered_json(draw: st.DrawFn, valid: Any) -> Any:
    """A copy of nested values with one to three of them exchanged, taken out, or added."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        at = value
        while isinstance(at, (dict, list)) and at:
            keys = sorted(at) if isinstance(at, dict) else range(len(at))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(at[key], (dict, list)) or not at[key] or draw(st.booleans()):
                if draw(st.integers(0, 3)):
                    at[key] = copy.deepcopy(draw(ODD))
                else:
                    del at[key]
                break
            at = at[key]
    return value


def looked_up(path: str) -> None:
    """Use a front as a device does."""
    front = import_front(path)
    LookupTable(front).pick_or_cheapest(0.5 * front.reference_cost)


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fronts_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "front.json"
    export_front(make_front(), file)
    valid = json.loads(file.read_text())
    file.write_text(json.dumps(data.draw(altered_json(valid))))
    read_or_refused(looked_up, str(file))


@given(stored=altered_json(RunSpec("digits-cnn", strategy="nested").as_json()))
@settings(max_examples=80)
def test_settings_of_runs_are_read_or_refused(stored: Any) -> None:
    read_or_refused(lambda one: run_spec(one).check(), stored)


@given(stored=altered_json(make_fleet("extreme").budgets().as_json()))
@example(stored={"fleet": "one", "shares": [1.0], "weights": [10**400]})
@settings(max_examples=50)
def test_budgets_are_read_or_refused(stored: Any) -> None:
    read_or_refused(budgets_of, stored)
