from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from flwr.app import ArrayRecord, ConfigRecord, Error, Message  # noqa: E402

from distreal_dse.errors import DistrealError, InputError  # noqa: E402
from distreal_dse.fronts import export_front, load_front  # noqa: E402
from distreal_dse.study.catalogue import StudySource  # noqa: E402
from distreal_dse.study.preparation import prepare  # noqa: E402
from fl.flower.records import ANSWER, FIGURES, WEIGHTS, arrays_in, arrays_of  # noqa: E402
from fl.flower.strategy import FlowerStrategy  # noqa: E402
from fl.store.checkpoints import load_checkpoint  # noqa: E402
from fl.store.execution import carry_out  # noqa: E402
from fl.store.runs import list_runs, load_run  # noqa: E402
from fl.testing import hand_made_front  # noqa: E402
from flower_runs import Ground, OnFlower  # noqa: E402

ALL = {"devices": 4, "cohort": 4, "split": "iid", "rounds": 2}


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground.make(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[str]]:
    """The warnings and errors so far."""
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    return lambda: [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def of_device(message: Message, device: int) -> bool:
    """Whether it is what a device trained."""
    if message.metadata.message_type != "train" or not message.has_content():
        return False
    answer = message.content[ANSWER]
    return isinstance(answer, ConfigRecord) and answer.get("device") == device


def with_arrays(message: Message, name: str, change: Callable[[Any], Any]) -> Message:
    """The message, its arrays changed."""
    arrays = arrays_in(message.content, name)
    message.content[name] = arrays_of({key: change(array) for key, array in arrays.items()})
    return message


def with_answer(message: Message, **changes: Any) -> Message:
    record = message.content[ANSWER]
    assert isinstance(record, ConfigRecord)
    message.content[ANSWER] = ConfigRecord({**record, **changes})
    return message


def poisoned(array: Any) -> Any:
    return np.full_like(array, np.nan) if array.dtype == np.float32 else array


def no_number(message: Message) -> Message:
    record = message.content[WEIGHTS]
    assert isinstance(record, ArrayRecord)
    for array in record.values():
        array.dtype = "object"
    return message


def with_costs(message: Message, cost: float) -> Message:
    arrays = arrays_in(message.content, FIGURES)
    arrays["costs"] = np.full_like(arrays["costs"], cost)
    message.content[FIGURES] = arrays_of(arrays)
    return message


FAULTS: dict[str, tuple[Callable[[Message], Message | None], str]] = {
    "NaN": (lambda m: with_arrays(m, WEIGHTS, poisoned), "expected finite values"),
    "shapes": (lambda m: with_arrays(m, WEIGHTS, lambda a: a[:-1]), "part of a state: expected"),
    "types": (lambda m: with_arrays(m, WEIGHTS, lambda a: a.astype(np.float64)), "found float64"),
    "objects": (no_number, "expected numbers, found 'object'"),
    "masks": (lambda m: with_arrays(m, FIGURES, lambda a: a[:-1]), "masks and costs"),
    "units": (lambda m: with_answer(m, units=b"\0\0"), "expected all that the masks say"),
    "samples": (lambda m: with_answer(m, samples=10**6), "samples: expected at most the"),
    "who": (lambda m: with_answer(m, device=3), "device: expected 1, found 3"),
    "loss": (lambda m: with_answer(m, loss="low"), "loss: expected float, found str"),
    "NaN seconds": (lambda m: with_answer(m, seconds=math.nan), "seconds: expected 0 to"),
    "infinite seconds": (lambda m: with_answer(m, seconds=math.inf), "seconds: expected 0 to"),
    "negative seconds": (lambda m: with_answer(m, seconds=-1e9), "seconds: expected 0 to"),
    "long seconds": (lambda m: with_answer(m, seconds=1e11), "seconds: expected at most the 1e+10"),
    "NaN MACs": (lambda m: with_answer(m, macs=math.nan), "training MACs: expected 0 to"),
    "large MACs": (lambda m: with_answer(m, macs=1.7e308), "training MACs: expected 0 to"),
    "over budget": (lambda m: with_answer(m, **{"over-budget": 2**63 - 1}), "over the budget"),
    "NaN costs": (lambda m: with_costs(m, math.nan), "cost shares: expected 0 to"),
    "late lies": (
        lambda m: with_answer(m, complete=False, seconds=math.nan), "seconds: expected 0 to",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_update_that_can_not_be_merged_is_left_out_and_the_round_completes(
    ground: Ground, log: Callable[[], list[str]], fault: str
) -> None:
    spoil, said = FAULTS[fault]
    found = ground.on_flower(
        ground.config("fedavg", **ALL), change=lambda m: spoil(m) if of_device(m, 1) else m
    )
    for result in found.rounds[1:]:
        assert [one.outcome for one in result.devices] == ["accepted", "rejected"] + 2 * [
            "accepted"
        ]
    assert all(torch.isfinite(one).all() for one in found.state.values())
    # What it lied about is in no figure and not in the clock.
    assert found.rounds[-1].virtual_seconds < 100
    assert 0 <= found.rounds[-1].over_budget <= found.rounds[-1].mini_batches
    assert 0 <= found.rounds[-1].training_macs < 1e9
    warnings = [one for one in log() if "device 1: update left out" in one]
    assert len(warnings) == 2
    assert said in warnings[0]


@pytest.mark.parametrize("own", [{"deadline": 1.0}, {"time": "live", "timeout": 60.0}])
def test_no_device_says_that_it_took_longer_than_the_round_lets_it(
    ground: Ground, log: Callable[[], list[str]], own: dict[str, Any]
) -> None:
    def spoil(message: Message) -> Message:
        return with_answer(message, seconds=100.0) if of_device(message, 1) else message

    found = ground.on_flower(ground.config(**ALL, **own), change=spoil)
    assert [result.devices[1].seconds for result in found.rounds[1:]] == [0.0, 0.0]
    assert any("seconds: expected at most the" in one for one in log())
    assert found.rounds[-1].virtual_seconds < 100


@pytest.mark.parametrize("how", ["silent", "error"])
def test_a_device_that_does_not_answer_is_missed_and_the_round_completes(
    ground: Ground, log: Callable[[], list[str]], how: str
) -> None:
    def lost(message: Message) -> Message | None:
        if not of_device(message, 2):
            return message
        if how == "silent":
            return None
        gone = Message(Error(3, "node is gone\n\x1b[2J"), reply_to=message)
        # From the server, as Flower answers for a node that it has lost.
        gone.metadata.__dict__["_reply_to_message_id"] = message.metadata.reply_to_message_id
        return gone

    found = ground.on_flower(ground.config("fedavg", **ALL), change=lost)
    outcomes = [[one.outcome for one in result.devices] for result in found.rounds[1:]]
    assert outcomes == 2 * [["accepted", "accepted", "missed", "accepted"]]
    said = "no answer in time" if how == "silent" else "node is gone"
    missed = [one for one in log() if "device 2: missed" in one and said in one]
    assert missed and all(one.isprintable() for one in missed)
    assert load_run(ground.database, found.run_id).finished


def other_front(ground: Ground) -> Path:
    network = prepare(StudySource(str(ground.study)).load(), 0)[0]
    front = hand_made_front(network, (3, 3), (6, 8), name="tiny", study="tiny")
    path = ground.folder / "other.json"
    export_front(front, path)
    return path


def test_a_device_with_another_version_of_the_front_is_refused_with_both_hashes(
    ground: Ground, log: Callable[[], list[str]]
) -> None:
    path = other_front(ground)
    nodes: list[dict[str, Any]] = [{"partition-id": i} for i in range(4)]
    nodes[3]["front"] = str(path)
    found = ground.on_flower(ground.config(**ALL | {"cohort": 3}), nodes)
    assert [one.cohort for one in found.rounds[1:]] == 2 * [(0, 1, 2)]
    (refusal,) = [one for one in log() if "takes no part" in one]
    run = load_run(ground.database, found.run_id)
    assert run.front_hash is not None and run.front_hash in refusal
    from distreal_dse.fronts import import_front

    assert import_front(path).content_hash in refusal


def test_a_device_with_another_model_is_refused_with_both_fingerprints(
    ground: Ground, log: Callable[[], list[str]]
) -> None:
    wider = ground.folder / "wider.py"
    wider.write_text(ground.study.read_text().replace("Conv2d(1, 6", "Conv2d(1, 7").replace(
        "BatchNorm2d(6)", "BatchNorm2d(7)").replace("Conv2d(6, 8", "Conv2d(7, 8"))  # fmt: skip
    nodes: list[dict[str, Any]] = [{"partition-id": i} for i in range(4)]
    nodes[0]["study"] = str(wider)
    config = ground.config("heterofl", **ALL | {"cohort": 3, "front": ""})
    found = ground.on_flower(config, nodes)
    assert [one.cohort for one in found.rounds[1:]] == 2 * [(1, 2, 3)]
    fingerprints = [
        prepare(StudySource(str(one)).load(), 0)[0].channels.fingerprint
        for one in (ground.study, wider)
    ]
    (refusal,) = [one for one in log() if "takes no part" in one]
    assert all(one in refusal for one in fingerprints)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"partition-id": 0, "front": "/nowhere/front.json"}, "give --node-config 'front="),
        ({"class": "phone"}, "expected partition-id"),
        ({"partition-id": 4}, "0 to 3, found 4"),
        ({"partition-id": 1}, "one node for each device"),
        ({"partition-id": 0, "speed": 0}, "speed of the node configuration"),
        ({"partition-id": 0, "sped": 1.0}, "did you mean speed"),
    ],
)  # fmt: skip
def test_a_node_that_is_told_wrong_takes_no_part_and_says_why_in_a_line(
    ground: Ground, log: Callable[[], list[str]], node: dict[str, Any], said: str
) -> None:
    nodes = [*({"partition-id": i} for i in (1, 2, 3)), node]
    ground.on_flower(ground.config(**ALL | {"cohort": 3, "timeout": 0.5}), nodes)
    (refusal,) = [one for one in log() if "takes no part" in one]
    assert said in refusal
    assert "\n" not in refusal


def test_a_node_that_never_says_who_it_is_is_not_waited_for_in_each_round(
    ground: Ground, log: Callable[[], list[str]]
) -> None:
    def mute(message: Message) -> Message | None:
        answer = message.content[ANSWER]
        is_greeting = isinstance(answer, ConfigRecord) and "everything" in answer
        return None if is_greeting and answer["device"] == 1 else message

    own = {"cohort": 3, "timeout": 0.5, "rounds": 3}
    found = ground.on_flower(ground.config(**ALL | own), change=mute)
    assert [one.cohort for one in found.rounds[1:]] == 3 * [(0, 2, 3)]
    assert [kind for kind, _ in found.grid.sent].count("query.hello") == 4
    (refusal,) = [one for one in log() if "takes no part" in one]
    assert "expected an answer in time, found none" in refusal


def test_a_device_that_says_it_has_more_samples_than_allowed_takes_no_part(
    ground: Ground, log: Callable[[], list[str]]
) -> None:
    def greedy(message: Message) -> Message:
        answer = message.content[ANSWER]
        is_greeting = isinstance(answer, ConfigRecord) and "everything" in answer
        if is_greeting and answer["device"] == 1:
            return with_answer(message, samples=10**9)
        return message

    own = {"cohort": 3, "timeout": 0.5, "most_samples": 10**6}
    found = ground.on_flower(ground.config(**ALL | own), change=greedy)
    assert [one.cohort for one in found.rounds[1:]] == 2 * [(0, 2, 3)]
    (refusal,) = [one for one in log() if "takes no part" in one]
    assert "expected at most the 1000000 of most-samples, found 1000000000" in refusal


def test_without_any_device_the_run_fails_in_a_line_and_is_gone_on_with(ground: Ground) -> None:
    config = ground.config(**ALL | {"timeout": 0.5})
    with pytest.raises(DistrealError, match="expected a device to train it, found none"):
        ground.on_flower(config, [{"partition-id": 9}])
    (run,) = list_runs(ground.database)
    assert run.failure is not None
    found = ground.on_flower(config)
    assert found.run_id == run.id
    assert load_run(ground.database, run.id).failure is None


class Stopped(Exception):
    """The server is gone."""


def stopped_in_round(
    ground: Ground, config: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregate = FlowerStrategy.aggregate_train

    def stop(self: FlowerStrategy, server_round: int, replies: Any) -> Any:
        if server_round == number:
            raise Stopped
        return aggregate(self, server_round, replies)

    with monkeypatch.context() as patched:
        patched.setattr(FlowerStrategy, "aggregate_train", stop)
        with pytest.raises(Stopped):
            ground.on_flower(config)


@pytest.mark.parametrize("every", [1, 2])
def test_a_server_that_is_started_again_goes_on_from_the_last_checkpoint(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    config = ground.config(rounds=4, server="momentum:lr=1,beta=0.5", checkpoint_every=every)
    whole: OnFlower = ground.on_flower(config | {"timeout": 77.0})
    stopped_in_round(ground, config, 4, monkeypatch)
    run = list_runs(ground.database)[-1]
    checkpoint = load_checkpoint(ground.database, run.id)
    assert checkpoint is not None
    assert checkpoint.round == (3 if every == 1 else 2)
    found = ground.on_flower(config)
    assert found.run_id == run.id
    kinds = [kind for kind, _ in found.grid.sent]
    assert kinds.count("train") == 3 * (4 - checkpoint.round)
    assert all(torch.equal(one, found.state[name]) for name, one in whole.state.items())
    assert found.rounds == whole.rounds


def test_an_unfinished_run_is_not_gone_on_with_another_front(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ground.config(front=str(ground.export))
    stopped_in_round(ground, config, 2, monkeypatch)
    ground.export.write_text(other_front(ground).read_text())
    with pytest.raises(InputError, match="front of unfinished run 1 is not what it was begun"):
        ground.on_flower(config)


def test_an_unfinished_run_is_not_gone_on_with_another_availability_trace(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {"study": "one", "availability trace": "before"}
    with monkeypatch.context() as patched:
        patched.setattr("fl.flower.serving.study_hash", lambda *_: "one")
        patched.setattr("fl.flower.serving.file_hashes", lambda _: hashes)
        stopped_in_round(ground, ground.config(), 2, monkeypatch)
        patched.setitem(hashes, "availability trace", "after")
        with pytest.raises(InputError, match="run 1 was begun with another availability trace"):
            ground.on_flower(ground.config())


def test_an_unfinished_run_on_flower_is_not_resumed_in_process(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_in_round(ground, ground.config(), 2, monkeypatch)
    (run,) = list_runs(ground.database)
    with pytest.raises(InputError, match="start it with `flwr run` as before, and it goes on"):
        carry_out(ground.database, run.id)


def test_a_plan_that_trains_more_than_it_sends_for_is_refused(
    ground: Ground, log: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl.strategies import FixedPlan

    monkeypatch.setattr(FixedPlan, "sent", lambda self: (1, 1))
    found = ground.on_flower(ground.config("fedavg", **ALL))
    assert {one.outcome for result in found.rounds[1:] for one in result.devices} == {"rejected"}
    assert any("expected a plan to train what it sends for at most" in one for one in log())


def live_front(ground: Ground, made_from: str) -> Path:
    """The front of the server as a device has it that has priced it in its own seconds."""
    front = load_front(ground.database, "tiny")
    own = replace(
        front, name="tiny-here", version=0, cost_metric="latency", device={"cpu": "this"},
        reference_cost=0.01,
        points=tuple(replace(p, cost=p.cost / front.reference_cost / 100) for p in front.points),
        settings={**front.settings, "batch size": 16, "repriced from": {"hash": made_from}},
    )  # fmt: skip
    path = ground.folder / "here.json"
    export_front(own, path)
    return path


@pytest.mark.parametrize("time", ["live", "virtual"])
@pytest.mark.parametrize("related", [True, False])
def test_a_real_device_may_have_the_front_of_the_server_in_seconds_of_its_own(
    ground: Ground, log: Callable[[], list[str]], time: str, related: bool
) -> None:
    own_hash = load_front(ground.database, "tiny").content_hash if related else "another"
    path = live_front(ground, own_hash)
    nodes: list[dict[str, Any]] = [{"partition-id": i} for i in range(4)]
    nodes[1] |= {"front": str(path), "class": "phone"}
    found = ground.on_flower(ground.config(**ALL | {"cohort": 3, "time": time}), nodes)
    takes_part = any(1 in result.cohort for result in found.rounds)
    classes = {one.device_class for r in found.rounds for one in r.devices if one.device == 1}
    assert classes == ({"phone"} if takes_part else set())
    assert takes_part == (related and time == "live")
    assert takes_part != any("another front than the server" in one for one in log())
