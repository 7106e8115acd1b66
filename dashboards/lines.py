"""Which fronts of one network are one line beside others, and what a line gains for a budget.

All costs are shares of the full network's. Fronts that differ in their seed alone are one line: the
median attainment surface, between what all of them and what any of them attains; see
`distreal_dse.fronts.attainment_surface`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dashboards.costs import device_name
from distreal_dse.fronts import (
    LAYERS,
    PILOT,
    TABLE,
    VERIFICATION,
    Front,
    FrontPoint,
    attainment_surface,
    median_attainment,
)

# Of the full network's cost, in per cent.
BUDGETS = (1, 2, 5, 10, 20, 50, 100)
# From so many seeds on, a median with a band says more than a line for each.
SEEDS = 3
# Where short runs or time are limited, luck decides how many trials there are: 92 to 129 in three
# seeds of `--runs 240 --sampler nsga2`.
AS_MANY_TRIALS = 1.5
# Settings of a front that are no settings of its search, but what came of it.
_OUTCOMES = frozenset(
    {
        "failed verification", "harmful", "latency", LAYERS, PILOT, "repriced from", TABLE,
        "uniform family", VERIFICATION,
    }
)  # fmt: skip
# Settings that decide what a gain is a gain of.
_SHORT_RUNS = (
    "study", "options", "short run", "batch size", "optimizer", "masks", "clip norm", "scaling",
)  # fmt: skip

Surface = Sequence[tuple[float, float]]
"""Shares of the full network's cost, and what is gained from there on; both rise."""


@dataclass(frozen=True)
class BudgetGain:
    """What a line gains for a budget.

    Parameters
    ----------
    budget
        In per cent of the full network's cost.
    gain
        Of the best point that is no dearer, in nats; of several fronts the median, which half of
        them attain. None where nothing fits.
    low, high
        What all and what any of the fronts attain; None where nothing fits.
    standard_error
        Of the gain of a single front.
    """

    budget: int
    gain: float | None
    low: float | None
    high: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Line:
    """What is drawn as one line: a front, or several that differ in their seed alone.

    Parameters
    ----------
    name
        For people, in full.
    fronts
        At least one.
    """

    name: str
    fronts: tuple[Front, ...]

    @property
    def is_band(self) -> bool:
        """Whether it stands for several fronts."""
        return len(self.fronts) > 1

    @cached_property
    def low(self) -> Surface:
        """Shares of the full cost and gains that all fronts attain."""
        return self._attained(len(self.fronts))

    @cached_property
    def middle(self) -> Surface:
        """The same that half of the fronts attain: of a single front, its points."""
        return self._attained(median_attainment(len(self.fronts)))

    @cached_property
    def high(self) -> Surface:
        """The same that any front attains."""
        return self._attained(1)

    def gain(self, budget: int) -> BudgetGain:
        """What it gains for a budget, in per cent of the full cost."""
        points = [best_within(front, budget) for front in self.fronts]
        gains = sorted((one.convergence for one in points if one is not None), reverse=True)

        def attained(by: int) -> float | None:
            return gains[by - 1] if by <= len(gains) else None

        count, first = len(points), points[0]
        return BudgetGain(
            budget,
            attained(median_attainment(count)),
            attained(count),
            attained(1),
            None if self.is_band or first is None else first.standard_error,
        )

    def _attained(self, by: int) -> Surface:
        surfaces = [shares_and_gains(front) for front in self.fronts]
        return attainment_surface(surfaces, by) if self.is_band else surfaces[0]


def best_within(front: Front, budget: int) -> FrontPoint | None:
    """The best point for a budget in per cent of the full cost; None where nothing fits."""
    limit = front.reference_cost * budget * (1 + 1e-9)  # however a share was rounded
    fits = (point for point in reversed(front.points) if 100 * point.cost <= limit)
    return next(fits, None)


def by_network(fronts: Sequence[Front]) -> list[list[Front]]:
    """The fronts of each network that has two or more, in their order; each front once."""
    networks: dict[tuple[str, tuple[int, ...]], dict[str, Front]] = {}
    for front in fronts:
        # Groups come from outside, too, and kept counts have to fit all of them.
        network = (front.model_fingerprint, tuple(group.channels for group in front.groups))
        networks.setdefault(network, {}).setdefault(front.content_hash, front)
    return [list(one.values()) for one in networks.values() if len(one) > 1]


def lines_of(fronts: Sequence[Front]) -> list[Line]:
    """The lines that fronts of one network are drawn as, in their order.

    `SEEDS` or more fronts whose study, settings, cost metric and device agree in all but the seed
    are one line, if they had about as many trials. A seed counts once, by its newest front; older
    ones are lines of their own.

    Parameters
    ----------
    fronts
        Of one network; each once.
    """
    names = _names(fronts)
    bands = _bands(fronts)
    lines: dict[int, Line] = {}
    for members in bands:
        first = members[0]
        # What bands of one study differ in may be anything; their members tell it.
        name = (
            f"{first.study}, {len(members)} seeds"
            if len(bands) == 1
            else f"{names[id(first)]} and {len(members) - 1} other seeds"
        ) + _unit_beside(first, fronts)
        lines |= dict.fromkeys(map(id, members), Line(name, members))
    for front in fronts:
        if id(front) not in lines:
            name = f"{names[id(front)]}{_unit_beside(front, fronts)}"
            lines[id(front)] = Line(name, (front,))
    return list({id(one := lines[id(front)]): one for front in fronts}.values())


@dataclass(frozen=True)
class SharedVector:
    """A vector of fronts with different costs.

    Parameters
    ----------
    kept_counts
        Units kept of each channel group.
    shares
        Of the full network's cost, the least and the largest of all fronts, by what costs are:
        ``MACs``, or seconds on a device; None where no front has it.
    """

    kept_counts: tuple[int, ...]
    shares: Mapping[str, tuple[float, float] | None]


def shared_vectors(fronts: Sequence[Front]) -> list[SharedVector]:
    """The vectors that are on fronts of different units or devices, by their first cost.

    Parameters
    ----------
    fronts
        Of one network.
    """
    kinds = _pricing_names(fronts)
    found: dict[tuple[int, ...], dict[str, list[float]]] = {}
    for front in fronts:
        kind = kinds[pricing_key(front)]
        for point in front.points:
            of_vector = found.setdefault(point.kept_counts, {})
            of_vector.setdefault(kind, []).append(point.cost / front.reference_cost)
    shared = [
        SharedVector(
            counts,
            {kind: (min(own), max(own)) if (own := costs.get(kind)) else None
             for kind in kinds.values()},
        )
        for counts, costs in found.items()
        if len(costs) > 1
    ]  # fmt: skip
    return sorted(shared, key=lambda one: next(span for span in one.shares.values() if span))


def pricing_name(front: Front) -> str:
    """What the costs of a front are, short: ``MACs``, or seconds on a device."""
    if front.cost_metric == "macs":
        return front.cost_unit
    threads = front.device.get("threads")
    beside = f", {threads} thr." if isinstance(threads, int) else ""
    return f"{front.cost_unit}, {device_name(front.device)}{beside}"


def pricing_key(front: Front) -> str:
    """What the costs of a front are, in full: equal texts, equal costs."""
    return json.dumps([front.cost_metric, front.device], sort_keys=True)


def differing_settings(fronts: Sequence[Front]) -> list[str]:
    """What differs in how the gains of fronts were measured, as far as they tell."""

    def told(front: Front, key: str) -> str | None:
        if key == "study":
            return front.study
        if key == "batch size" and "repriced from" in front.settings:
            return None  # that of the measurement
        return json.dumps(front.settings[key], sort_keys=True) if key in front.settings else None

    return [key for key in _SHORT_RUNS if len({told(front, key) for front in fronts} - {None}) > 1]


def front_age(front: Front) -> tuple[str, int]:
    """What sorts fronts from the oldest to the newest."""
    return front.created_at, front.version


def shares_and_gains(front: Front) -> Surface:
    """Share of the full network's cost, and gain, of the points of a front."""
    return [(point.cost / front.reference_cost, point.convergence) for point in front.points]


def seed_of(front: Front) -> int | None:
    """The seed of the search of a front; None where it doesn't tell."""
    seed = front.settings.get("seed")  # settings are free, e.g. of an imported front
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def _names(fronts: Sequence[Front]) -> dict[int, str]:
    """The label of each front, by its id; with its hash where another one has the same label."""
    labels = [front.label for front in fronts]
    return {
        id(front): f"{front.label} #{front.content_hash[:6]}"
        if labels.count(front.label) > 1
        else front.label
        for front in fronts
    }


def _unit_beside(front: Front, fronts: Sequence[Front]) -> str:
    """Unit and device, where not all of the fronts count MACs, which the axis says then."""
    counted_macs = all(one.cost_metric == "macs" for one in fronts)
    return "" if counted_macs else f" ({pricing_name(front)})"


def _pricing_names(fronts: Sequence[Front]) -> dict[str, str]:
    """What costs are, by `pricing_key`; different names for different ones."""
    names: dict[str, str] = {}
    for front in fronts:
        key, name = pricing_key(front), pricing_name(front)
        if key not in names:
            names[key] = f"{name} ({front.label})" if name in names.values() else name
    return names


def _bands(fronts: Sequence[Front]) -> list[tuple[Front, ...]]:
    """The fronts of each band, by seed."""
    kinds: dict[str, list[dict[int, Front]]] = {}
    for front in sorted(fronts, key=front_age, reverse=True):
        if (seed := seed_of(front)) is None:
            continue
        alike = kinds.setdefault(_kind(front), [])
        for members in alike:
            newest = next(iter(members.values()))
            if _trials_agree(newest, front):
                members.setdefault(seed, front)
                break
        else:
            alike.append({seed: front})
    found = [members for alike in kinds.values() for members in alike]
    return [
        tuple(members[seed] for seed in sorted(members))
        for members in found
        if len(members) >= SEEDS
    ]


def _trials_agree(one: Front, other: Front) -> bool:
    """Whether two searches had about as many trials; both may not tell."""
    few, many = one.settings.get("trials"), other.settings.get("trials")
    if not isinstance(few, int) or not isinstance(many, int):
        return bool(few == many)
    return max(few, many) < AS_MANY_TRIALS * min(few, many)


def _kind(front: Front) -> str:
    """What a front is but for its seed: equal texts, equal searches.

    Of the versions that it was made with, ours decides how a search goes; others may differ from
    host to host.
    """
    settings = {key: one for key, one in front.settings.items() if key not in _OUTCOMES}
    settings |= {"seed": None, "trials": None}  # see `_trials_agree`
    versions = settings.get("versions")
    ours = versions.get("distreal-dse") if isinstance(versions, Mapping) else None
    settings["versions"] = ours
    repriced = "repriced from" in front.settings
    return json.dumps([pricing_key(front), front.study, repriced, settings], sort_keys=True)
