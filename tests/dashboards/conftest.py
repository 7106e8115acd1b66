from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dashboards.findings import TrialPoint
from dashboards.serving import dashboard_server
from distreal_dse.fronts import (
    Front,
    FrontGroup,
    FrontPoint,
    MeasuredVector,
    verification_setting,
)
from fl.results import RoundResult
from fl.store.runs import Run
from front_examples import HOSTILE, make_front


def point(cost: float, gain: float, error: float = 0.0, uniform: bool = False) -> FrontPoint:
    return FrontPoint((0.5, 0.25), (8, 6), cost, gain, error, 8, 0.5, uniform, trial=int(cost))


def trial(cost: float, gain: float, error: float = 0.0, uniform: bool = True) -> TrialPoint:
    return TrialPoint(cost, gain, uniform, error, number=int(cost) + 1)


@pytest.fixture
def searched() -> Front:
    """Two searched vectors; the uniform family gains 0.4 at 10 %, 0.8 at 40 %, 1.0 at 100 %."""
    family = [
        {"rate": rate, "cost": cost, "convergence": gain, "standard_error": 0.0}
        for rate, cost, gain in ((0.0, 1600, 1.0), (0.4, 640, 0.8), (0.7, 160, 0.4))
    ]
    points = (point(80.0, 0.6), point(800.0, 0.9), point(1600.0, 1.0, uniform=True))
    measured = [(one["cost"], one["convergence"], True) for one in family]
    measured += [(one.cost, one.convergence, False) for one in points[:2]]
    runs = [
        MeasuredVector((8, 6), cost, tuple(gain + shift for shift in (-0.01, 0.0, 0.01)), uniform)
        for cost, gain, uniform in measured
    ]
    settings = {"seed": 7, "uniform family": family, "verification": verification_setting(runs)}
    return make_front(points=points, settings=settings)


@pytest.fixture
def hostile(searched: Front) -> Front:
    """A front that is hostile wherever text is free."""
    return make_front(
        study=HOSTILE.replace("\u202e", ""),
        model_fingerprint=HOSTILE.replace("\u202e", ""),
        groups=(FrontGroup(HOSTILE, 16), FrontGroup(HOSTILE, 8)),
        device={HOSTILE: HOSTILE},
        settings={**searched.settings, HOSTILE: {HOSTILE: [HOSTILE, None]}},
        points=searched.points,
    )


@pytest.fixture
def make_run() -> Callable[..., Run]:
    def make(number: int = 1, accuracies: tuple[float | None, ...] = (0.1, None, 0.5), **more: Any):
        rounds = tuple(RoundResult(i, 2.0 * i, acc, 1.0) for i, acc in enumerate(accuracies))
        values: dict[str, Any] = {
            "id": number,
            "study": "digits",
            "strategy": "distreal",
            "front_label": "digits@1",
            "front_hash": "abc",
            "model_fingerprint": "def",
            "seed": 3,
            "settings": {"rounds": 2},
            "created_at": "2026-01-31T12:00:00+00:00",
            "finished": True,
            "comparison": None,
            "rounds": rounds,
        }
        return Run(**{**values, **more})

    return make


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'search.db'}"


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serves a database, and gives the address of the pages."""
    with ExitStack() as stack:

        def start(url: str, **options: Any) -> str:
            server, address = stack.enter_context(dashboard_server(url, port=0, **options))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return address

        yield start
