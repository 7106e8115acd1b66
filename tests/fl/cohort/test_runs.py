"""Stored runs whose cohorts are trained at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from cohorts import apart
from distreal_dse.errors import InputError
from fl import run as run_federated
from fl.results import RoundResult
from fl.store.execution import begin_run, carry_out
from fl.store.runs import load_run
from fl.store.specs import RunSpec


class StoppedError(Exception):
    """Stands for whatever stops a run."""


def test_who_trains_a_run_may_change_while_it_goes(database: Engine, spec: RunSpec) -> None:
    """It is no condition of the run: another process goes on as it likes."""
    plain, _ = begin_run(database, spec)
    expected = carry_out(database, plain, clients="one-by-one")
    mixed, _ = begin_run(database, spec)

    def stop(result: RoundResult) -> None:
        if result.round == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        carry_out(database, mixed, listen=stop, clients="batched")
    found = carry_out(database, mixed, clients="one-by-one")
    assert expected is not None and found is not None
    state = expected.checkpoint().state
    assert all(apart(one, state[n]) < 1e-4 for n, one in found.checkpoint().state.items())
    runs = [load_run(database, number) for number in (plain, mixed)]
    assert runs[0].settings == runs[1].settings
    one, other = ([replace(r, loss=None) for r in run.rounds] for run in runs)
    assert one == other


def test_another_way_to_train_is_refused_before_anything_is_stored(url: str) -> None:
    with pytest.raises(InputError, match="--clients.*found 'all'"):
        run_federated("digits-cnn", clients="all", storage=url)
