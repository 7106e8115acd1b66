"""A front to test with, and a strategy for any other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from distreal_dse.fronts import Front, FrontGroup, FrontPoint, non_dominated

OWN_TABLES = {
    "fronts",
    "front_points",
    "verifications",
    "latencies",
    "runs",
    "run_checkpoints",
    "run_devices",
    "run_rounds",
    "search_claims",
    "search_drivers",
    "searches",
}


HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert(2)">'&amp;"ü%{x}\u202e"""
"""What a name must not be able to do: close or open elements, run, load, be decoded twice."""


def make_front(**changes: Any) -> Front:
    """A front of three points on two groups of 16 and 8 channels."""
    points = tuple(
        FrontPoint(
            rates=(rate, rate),
            kept_counts=(round(16 * (1 - rate)), round(8 * (1 - rate))),
            cost=cost,
            convergence=convergence,
            standard_error=0.01,
            replicates=8,
            accuracy=0.5,
            uniform=True,
            trial=trial,
        )
        for rate, cost, convergence, trial in (
            (0.75, 100.0, 0.25, 3),
            (0.5, 400.0, 0.5, None),
            (0.0, 1600.0, 0.75, 0),
        )
    )
    values: dict[str, Any] = {
        "name": "digits",
        "study": "digits",
        "model_fingerprint": "0123456789abcdef",
        "groups": (FrontGroup("conv1", 16), FrontGroup("conv2", 8)),
        "cost_metric": "macs",
        "device": {},
        "reference_cost": 1600.0,
        "settings": {"seed": 0, "sampler": "nsga2", "options": {"width": [1, 2.5, None]}},
        "points": points,
        "created_at": "2026-01-31T12:00:00+00:00",
    }
    return Front(**{**values, **changes})


def grouped_front(**changes: Any) -> Front:
    """The same front, whose units have 2 and 4 channels."""
    layers = [
        {"name": "conv1", "macs": 1.0, "inputs": {"fixed": 3.0}, "outputs": {"0": 2.0}},
        {"name": "conv2", "macs": 1.0, "inputs": {"0": 2.0}, "outputs": {"1": 4.0}},
    ]
    return make_front(**{"settings": {"seed": 0, "layers": layers}, **changes})


def harmful_front(count: int, **changes: Any) -> Front:
    """The same front, whose first ``count`` points harm."""
    front = grouped_front()
    points = tuple(
        replace(point, convergence=point.convergence - (1.0 if index < count else 0.0))
        for index, point in enumerate(front.points)
    )
    return replace(front, points=points, **changes)


_finite = st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_objects = st.dictionaries(st.text(), _json, max_size=3)


@st.composite
def fronts(draw: st.DrawFn) -> Front:
    """Any front: all that its description allows."""
    printable = st.text(min_size=1, max_size=8).filter(str.isprintable)
    widths = draw(st.lists(st.integers(1, 2048), min_size=1, max_size=4))
    groups = tuple(FrontGroup(draw(st.text(max_size=8)), width) for width in widths)
    pairs = draw(st.lists(st.tuples(st.floats(0, 1e300), _finite), min_size=1, max_size=6))
    kept = non_dominated([c for c, _ in pairs], [v for _, v in pairs])
    points = tuple(
        FrontPoint(
            rates=tuple(draw(st.floats(0, 1, exclude_max=True)) for _ in widths),
            kept_counts=tuple(draw(st.integers(1, width)) for width in widths),
            cost=pairs[index][0],
            convergence=pairs[index][1],
            standard_error=draw(st.floats(0, 1e300)),
            replicates=draw(st.integers(1, 1000)),
            accuracy=draw(st.floats(0, 1)),
            uniform=draw(st.booleans()),
            trial=draw(st.none() | st.integers(0, 10**6)),
        )
        for index in kept
    )
    return Front(
        name=draw(st.from_regex(r"\w[\w.+-]{0,8}", fullmatch=True)) + "x",
        study=draw(printable),
        model_fingerprint=draw(printable),
        groups=groups,
        cost_metric=draw(st.sampled_from(["macs", "latency"])),
        device=draw(_objects),
        # An area beyond the largest float is not what is tested here.
        reference_cost=draw(st.floats(1e-3, 1e100)),
        settings=draw(_objects),
        points=points,
        # Fixed: a front that differs in its time alone is not stored again.
        created_at="2026-01-31T12:00:00+00:00",
    )
