"""One process carries out a run at a time, and another goes on when it is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from distreal_dse.errors import InputError, StorageError
from distreal_dse.fronts import leases
from fl.results import RoundResult
from fl.store.checkpoints import load_checkpoint, save_checkpoint
from fl.store.execution import begin_run, carry_out
from fl.store.leases import Owner, RunHeldError, holding
from fl.store.runs import finish_run, forget_rounds, load_run, save_round, start_run
from fl.store.specs import RunSpec


@pytest.fixture
def run_id(database: Engine) -> int:
    return start_run(database, "noise", "small", None, "abc", 0, {})


def store_owner(database: Engine, run_id: int, owner: Owner, seconds_ago: float = 0.0) -> None:
    with database.begin() as connection:
        connection.execute(
            text("UPDATE runs SET owner = :owner, owned_since = :now, heartbeat = :at"),
            {"owner": str(owner), "now": "2026-01-31T12:00:00", "at": time.time() - seconds_ago},
        )


def stored(database: Engine) -> Any:
    with database.connect() as connection:
        return connection.execute(text("SELECT owner, heartbeat FROM runs")).one()


def test_a_run_is_held_by_one(database: Engine, run_id: int) -> None:
    with holding(database, run_id) as owner:
        assert Owner.read(stored(database).owner) == owner and owner.alive
        expected = (
            f"run {run_id} is carried out by process {os.getpid()} on {socket.gethostname()} since "
            r"20\d\d-.*, last heard of at 20\d\d-.*: expected nobody else; wait for it or end it$"
        )
        with pytest.raises(RunHeldError, match=expected), holding(database, run_id):
            pass
    assert tuple(stored(database)) == (None, None)
    with holding(database, run_id):  # it was given back
        pass
    with (
        pytest.raises(InputError, match="run 77: expected one that is stored"),
        holding(database, 77),
    ):
        pass


def test_of_many_who_want_a_run_at_once_one_gets_it(database: Engine, run_id: int) -> None:
    together, held, done = threading.Barrier(8), [], threading.Barrier(8)

    def want() -> None:
        together.wait()
        try:
            with holding(database, run_id) as owner:
                held.append(owner)
                done.wait(60)
        except RunHeldError:
            done.wait(60)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


def test_a_run_of_another_machine_is_taken_over_when_nothing_was_heard_of_it(
    database: Engine, run_id: int
) -> None:
    elsewhere = replace(Owner.here(), host="far away", boot="another", pid=12)
    store_owner(database, run_id, elsewhere, seconds_ago=leases.STALE - 60)
    expected = "process 12 on far away since .*if it is gone, try again at 20"
    with pytest.raises(RunHeldError, match=expected), holding(database, run_id):
        pass
    for seconds in (leases.STALE + 1, -1e6):  # a clock far ahead keeps no run for ever
        store_owner(database, run_id, elsewhere, seconds)
        with holding(database, run_id) as owner:
            assert stored(database).owner == str(owner)


def test_a_process_of_this_machine_that_ended_holds_nothing(database: Engine, run_id: int) -> None:
    code = (
        "import sys, os, signal; from distreal_dse.fronts import open_database; "
        "from fl.store.leases import holding\n"
        f"with holding(open_database(sys.argv[1]), {run_id}): os.kill(os.getpid(), signal.SIGKILL)"
    )
    url = database.url.render_as_string()
    process = subprocess.Popen([sys.executable, "-c", code, url])
    while stored(database).owner is None or process.poll() is None and not _is_zombie(process.pid):
        time.sleep(0.01)
    assert Owner.read(stored(database).owner).pid == process.pid
    with holding(database, run_id) as owner:  # although nobody has waited for the dead one yet
        assert stored(database).owner == str(owner)
    process.wait()


def test_a_process_of_this_machine_that_lives_keeps_its_run_however_silent_it_is(
    database: Engine, run_id: int
) -> None:
    store_owner(database, run_id, Owner.here(), seconds_ago=10 * leases.STALE)  # stopped, say
    with pytest.raises(RunHeldError, match=f"process {os.getpid()} on"), holding(database, run_id):
        pass


@pytest.mark.parametrize("proc", [["--mount-proc"], []], ids=["own /proc", "the /proc of all"])
def test_a_live_run_is_not_taken_over_from_another_pid_namespace(
    database: Engine, run_id: int, proc: list[str]
) -> None:
    code = (
        "import sys; from distreal_dse.errors import DistrealError; from distreal_dse.fronts "
        "import open_database; from fl.store.leases import holding\n"
        "try:\n"
        f"    with holding(open_database(sys.argv[1]), {run_id}): print('taken over')\n"
        "except DistrealError as error: print(error)"
    )
    command = ["unshare", "--pid", "--fork", *proc, sys.executable, "-c", code]
    with holding(database, run_id) as owner:
        try:
            found = subprocess.run(
                [*command, database.url.render_as_string()], capture_output=True, text=True
            )
        except FileNotFoundError:
            pytest.skip("there is no unshare")
        if "Operation not permitted" in found.stderr:
            pytest.skip(f"no PID namespace can be made here: {found.stderr.strip()}")
        assert stored(database).owner == str(owner)
    assert f"run {run_id} is carried out by process {os.getpid()} on" in found.stdout
    assert "in another PID namespace" in found.stdout and "try again at 20" in found.stdout
    assert "nothing was heard" not in found.stdout


def test_runs_that_an_earlier_version_holds_are_left_to_it(database: Engine, run_id: int) -> None:
    def store(seconds_ago: float) -> None:
        values = {"at": time.time() - seconds_ago, "by": "here 12 1700000000.5 0123abcd"}
        with database.begin() as connection:
            connection.execute(text("UPDATE runs SET owner = :by, heartbeat = :at"), values)

    store(seconds_ago=leases.STALE - 60)
    with pytest.raises(RunHeldError, match="process 12 on here since"), holding(database, run_id):
        pass
    store(seconds_ago=leases.STALE + 1)
    with holding(database, run_id):
        pass


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_signs_of_life_are_given_while_a_round_lasts(
    database: Engine, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEWED", 0.02)
    with holding(database, run_id):
        first = stored(database).heartbeat
        end = time.monotonic() + 20
        while stored(database).heartbeat == first:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_who_lost_a_run_stores_nothing_of_it_any_more(database: Engine, run_id: int) -> None:
    def result(number: int) -> RoundResult:
        return RoundResult(number, 1.0, 0.5, 1.0)

    with holding(database, run_id) as owner:
        save_round(database, run_id, result(0), owner)
        other = replace(Owner.here(), host="far away", boot="another", pid=12)
        store_owner(database, run_id, other)
        for store in (
            lambda: save_round(database, run_id, result(1), owner),
            lambda: forget_rounds(database, run_id, after=-1, owner=owner),
            lambda: finish_run(database, run_id, owner),
        ):
            with pytest.raises(
                RunHeldError, match=f"run {run_id} was taken over by process 12 on far away at 2026"
            ):
                store()
    assert stored(database).owner == str(other)  # nor does it give it back
    run = load_run(database, run_id)
    assert [one.round for one in run.rounds] == [0] and not run.finished


def test_a_run_with_gaps_is_not_finished(database: Engine, run_id: int) -> None:
    for number in (0, 1, 3):
        save_round(database, run_id, RoundResult(number, 1.0, 0.5, 1.0))
    with pytest.raises(StorageError, match=f"run {run_id} lacks round 2: expected rounds 0 to 3"):
        finish_run(database, run_id)
    assert not load_run(database, run_id).finished


def test_rounds_that_are_missing_before_a_checkpoint_are_trained_again(
    database: Engine, spec: RunSpec
) -> None:
    """As two processes of an earlier version left them that carried out one run."""
    whole, begun = begin_run(database, spec)
    carry_out(database, whole, begun)
    expected = load_run(database, whole).rounds

    def stop(result: RoundResult) -> None:
        if result.round == 3:
            raise KeyboardInterrupt

    run_id, begun = begin_run(database, spec)
    with pytest.raises(KeyboardInterrupt):
        carry_out(database, run_id, begun, stop)
    with database.begin() as connection:
        connection.execute(text(f"DELETE FROM run_rounds WHERE run_id = {run_id} AND round = 2"))
    carry_out(database, run_id)
    run = load_run(database, run_id)
    assert run.finished and run.rounds == expected


def test_a_held_run_is_not_carried_out_by_another(database: Engine, spec: RunSpec) -> None:
    run_id, begun = begin_run(database, spec)
    refused = []

    def again(result: RoundResult) -> None:
        if result.round == 2:
            with pytest.raises(RunHeldError) as held:
                carry_out(database, run_id)
            refused.append(held.value)

    carry_out(database, run_id, begun, again)
    run = load_run(database, run_id)
    assert refused and run.finished and run.failure is None
    assert [one.round for one in run.rounds] == list(range(6))
    assert load_checkpoint(database, run_id) is None
    assert stored(database).owner is None


def test_a_checkpoint_is_stored_by_the_owner_alone(database: Engine, spec: RunSpec) -> None:
    run_id, begun = begin_run(database, spec)
    checkpoint = begun.checkpoint()
    with pytest.raises(RunHeldError):
        save_checkpoint(database, run_id, checkpoint, Owner.here())
    with holding(database, run_id) as owner:
        save_checkpoint(database, run_id, checkpoint, owner)
    assert load_checkpoint(database, run_id) is not None
