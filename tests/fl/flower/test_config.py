from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from distreal_dse.errors import InputError  # noqa: E402
from fl.flower.config import for_node, read_config, read_node  # noqa: E402
from fl.store.specs import RunSpec  # noqa: E402
from fl.world.fleet import make_fleet  # noqa: E402

HOME = Path("/home/of/the/app")
LEAST = {"study": "digits-cnn", "strategy": "heterofl"}


def test_an_app_is_told_a_run_in_the_words_of_the_command_line() -> None:
    config = LEAST | {
        "front": "", "rounds": 7, "devices": 9, "cohort": 4, "epochs": 2, "seed": 5,
        "deadline": 1.5, "late": "partial", "split": "shards", "fleet": "extreme",
        "study-options": "data=/pictures size=16", "timeout": 9.0, "time": "live",
        "storage": "sqlite:///own.db",
    }  # fmt: skip
    found = read_config(config, HOME)
    fleet = make_fleet("extreme")
    spec = RunSpec(
        study="digits-cnn", options=(("data", "/pictures"), ("size", "16")), strategy="heterofl",
        rounds=7, devices=9, cohort=4, local_epochs=2, seed=5, split="shards",
        classes=fleet.classes, availability=fleet.availability, statistics="averaged",
    )  # fmt: skip
    assert found.spec.rules.deadline == 1.5
    assert found.spec.rules.late == "partial"
    from dataclasses import replace

    assert replace(found.spec, rules=spec.rules) == spec
    assert (found.time, found.timeout, found.storage) == ("live", 9.0, "sqlite:///own.db")


def test_no_deadline_is_written_as_0() -> None:
    assert read_config(LEAST | {"deadline": 0.0}, HOME).spec.rules.deadline is None


@pytest.mark.parametrize("name", ["DISTREAL_STORAGE", "OPTUNA_STORAGE"])
def test_without_a_storage_it_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for one in ("DISTREAL_STORAGE", "OPTUNA_STORAGE"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(name, "sqlite:///from-environment.db")
    assert read_config(LEAST | {"storage": ""}, HOME).storage == "sqlite:///from-environment.db"


def test_a_study_file_without_a_path_lies_in_the_app() -> None:
    assert read_config(LEAST | {"study": "study.py"}, HOME).spec.study == f"{HOME}/study.py"
    assert read_config(LEAST | {"study": "/a/b.py"}, HOME).spec.study == "/a/b.py"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rouns": 3}, "did you mean rounds"),
        ({"rounds": "3"}, "rounds of the app configuration: expected a whole number, found '3'"),
        ({"rounds": True}, "expected a whole number"),
        ({"strategy": 5}, "strategy of the app configuration: expected text"),
        ({"time": "real"}, "virtual"),
        ({"timeout": 0.0}, "timeout of the app configuration: expected above 0"),
        ({"study-options": "16"}, "expected NAME=VALUE"),
        ({"strategy": "distreal:form=random"}, "expected a front"),
        ({"cohort": 99}, "expected at most the 20 devices"),
        ({"timeout": "soon"}, "timeout of the app configuration: expected a number, found 'soon'"),
        ({"deadline": "soon"}, "deadline of the app configuration: expected a number"),
        ({"deadline": True}, "deadline of the app configuration: expected a number, found True"),
        ({"overcommit": "a"}, "overcommit of the app configuration: expected a number, found 'a'"),
        ({"most-samples": -1}, "most-samples of the app configuration: expected a whole number"),
        ({"most-samples": 9.5}, "most-samples of the app configuration: expected a whole number"),
        ({"deadline": -1.0}, "deadline of rounds: expected more than 0"),
    ],
)
def test_what_is_told_wrong_is_said_in_a_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_config(LEAST | change, HOME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"speed": "fast"}, "speed of the node configuration: expected a number, found 'fast'"),
        ({"slot": "long"}, "slot of the node configuration: expected a number, found 'long'"),
        ({"threads": "two"}, "threads of the node configuration: expected a whole number"),
        ({"threads": 1.5}, "threads of the node configuration: expected a whole number"),
    ],
)
def test_what_a_node_is_told_wrong_is_said_in_a_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_node({"partition-id": 0} | change, 3)


def test_a_node_has_its_own_front_and_nothing_else_of_the_run() -> None:
    app = {**LEAST, "front": "common@3", "rounds": 7}
    node = {"partition-id": 2, "front": "/own.json", "slot": 0.5, "class": "phone", "threads": 2}
    told = for_node(app, node)
    assert (told["front"], told["rounds"]) == ("/own.json", 7)
    found = read_node(node, 3)
    assert (found.device, found.device_class, found.slot, found.threads) == (2, "phone", 0.5, 2)
    with pytest.raises(InputError, match="key of the node configuration"):
        for_node(app, {"partition-id": 0, "rounds": 9})
