"""The front as a value: verified, mutually non-dominated dropout vectors of one network.

Cost is minimised, convergence is maximised.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from distreal_dse.errors import FrontError
from distreal_dse.support.tables import make_table

if TYPE_CHECKING:
    from distreal_dse.fronts._lookup import LookupTable
    from distreal_dse.fronts._table import TableVector

COST_UNITS = {"macs": "MACs", "latency": "s"}
"""The unit of each cost metric: training MACs per sample, or seconds per training mini-batch."""

# Names stand in "name@version", in shells and in file names.
_NAME = re.compile(r"\w[\w.+-]*")


def utc_now(precision: str = "seconds") -> str:
    """Return the time now as ISO 8601 in UTC, e.g. ``2026-01-31T12:00:00+00:00``.

    ``precision`` is ``"seconds"``, or ``"microseconds"`` where it has to tell things apart.
    """
    return datetime.now(UTC).isoformat(timespec=precision)


def kept_counts_key(kept_counts: Iterable[int]) -> str:
    """Write kept counts as text, e.g. ``16-8-4``."""
    return "-".join(map(str, kept_counts))


def non_dominated(costs: Sequence[float], convergences: Sequence[float]) -> list[int]:
    """Find the points that no other point beats in one objective without losing in the other.

    Parameters
    ----------
    costs, convergences
        One number per point, none of them NaN; the cost is minimised, the convergence maximised.

    Returns
    -------
    list of int
        Indices of the non-dominated points by rising cost (and so by rising convergence); of
        points that are equal in both, the first alone.

    Raises
    ------
    FrontError
        Where a number is NaN, which no order can place.
    """
    if any(map(math.isnan, (*costs, *convergences))):
        raise FrontError("points of a front: expected numbers, found NaN; leave failed trials out")
    points = sorted(
        (cost, -convergence, index)
        for index, (cost, convergence) in enumerate(zip(costs, convergences, strict=True))
    )
    kept: list[int] = []
    best = math.inf
    for _, loss, index in points:
        if loss < best or not kept:
            kept.append(index)
            best = loss
    return kept


def hypervolume(points: Iterable[tuple[float, float]], reference_cost: float) -> float:
    """Area that points dominate, relative to the full network's cost and no convergence at all.

    Parameters
    ----------
    points
        Pairs of cost and convergence, in any order, dominated ones allowed. Those dearer than the
        reference or with a convergence of 0 or less add nothing.
    reference_cost
        Cost of the full network, > 0, in the unit of the costs.

    Returns
    -------
    float
        Area in the unit of convergence, because costs are divided by the reference cost.
    """
    strips: list[float] = []
    best = 0.0
    # By rising cost, each point adds the strip between the best convergence so far and its own.
    for cost, convergence in sorted(points):
        if cost <= reference_cost and convergence > best:
            strips.append((1.0 - cost / reference_cost) * (convergence - best))
            best = convergence
    return math.fsum(strips)


def check_front_name(name: str) -> None:
    """Refuse a name that can't stand in ``name@version``, in shells and in file names.

    Raises
    ------
    FrontError
        If there is anything in it but letters, digits and ``_ . + -``, it ends in ``.json``, or
        it is a number, which would name a federated run.
    """
    _expect(
        _NAME.fullmatch(name) and not name.lower().endswith(".json") and not name.isdecimal(),
        f"front {name!r}",
        "a name of letters, digits and _ . + - that is no number and doesn't end in .json "
        "(choose one with --name)",
        repr(name),
    )


def curve_hypervolume(points: Iterable[tuple[float, float]], reference_cost: float) -> float:
    """Like `hypervolume`, but of the curve through the points: as if all between them were there.

    What a sampled family of vectors (one rate for all layers, say) could reach if it were sampled
    without end, so that a front is not credited for having more points. Between neighbours the
    convergence is taken as linear in the logarithm of the cost, as figures draw it.

    Parameters
    ----------
    points
        Pairs of cost (> 0) and convergence, in any order; as for `hypervolume`.
    reference_cost
        Cost of the full network, > 0.
    """
    useful = [(cost, gain) for cost, gain in points if 0 < cost <= reference_cost and gain > 0]
    best = non_dominated([cost for cost, _ in useful], [gain for _, gain in useful])
    curve = [(useful[index][0] / reference_cost, useful[index][1]) for index in best]
    area = 0.0
    for (cheap, low), (dear, high) in pairwise(curve):
        ratio = math.log(dear / cheap)
        # The integral of low + (high − low) · ln(c / cheap) / ratio over c from cheap to dear.
        area += low * (dear - cheap) + (high - low) * (dear - (dear - cheap) / ratio)
    if curve:
        area += curve[-1][1] * (1 - curve[-1][0])
    return area


@dataclass(frozen=True)
class FrontGroup:
    """A channel group of the network: its name and how many units of channels it has (≥ 1).

    A unit is kept or dropped as a whole; `channel_counts` tells how many channels it has.
    """

    name: str
    channels: int

    def __post_init__(self) -> None:
        _set(self, channels=int(self.channels))
        _expect(self.channels >= 1, f"channel group {self.name}", "channels", self.channels)


@dataclass(frozen=True)
class FrontPoint:
    """A verified dropout vector.

    Parameters
    ----------
    rates
        Dropout rate of each channel group, in [0, 1).
    kept_counts
        Units kept of each group: what the vector really is. A unit is mostly one channel (see
        `FrontGroup`).
    cost
        Training cost in the front's cost unit, ≥ 0.
    convergence
        Mean improvement of the validation loss by a short run.
    standard_error
        Standard error of the convergence, ≥ 0.
    replicates
        Short runs that convergence and accuracy are the means of, ≥ 1.
    accuracy
        Mean validation accuracy after the short run, in [0, 1].
    uniform
        Whether all groups have one rate.
    trial
        Number of the trial that proposed the vector, if one did.
    memory
        Bytes of tensors at the peak of a training step, ≥ 1, as predicted where the front was
        made; None where that is not known.

    Raises
    ------
    FrontError
        Where a number lies outside its range.
    """

    rates: tuple[float, ...]
    kept_counts: tuple[int, ...]
    cost: float
    convergence: float
    standard_error: float
    replicates: int
    accuracy: float
    uniform: bool
    trial: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        kept_counts = tuple(int(count) for count in self.kept_counts)
        where = f"front point {kept_counts_key(kept_counts)}"
        # One canonical form (plain Python numbers), because the content hash is taken from it.
        _set(
            self,
            rates=tuple(_finite(rate, f"{where}: rate") for rate in self.rates),
            kept_counts=kept_counts,
            cost=_finite(self.cost, f"{where}: cost"),
            convergence=_finite(self.convergence, f"{where}: convergence"),
            standard_error=_finite(self.standard_error, f"{where}: standard error"),
            replicates=int(self.replicates),
            accuracy=_finite(self.accuracy, f"{where}: accuracy"),
            uniform=bool(self.uniform),
            trial=None if self.trial is None else int(self.trial),
            memory=None if self.memory is None else int(self.memory),
        )
        _expect(all(0 <= rate < 1 for rate in self.rates), where, "rates in [0, 1)", self.rates)
        _expect(self.cost >= 0, where, "a cost of 0 or more", self.cost)
        _expect(self.standard_error >= 0, where, "a standard error ≥ 0", self.standard_error)
        _expect(self.replicates >= 1, where, "at least 1 replicate", self.replicates)
        known = self.memory is not None
        _expect(not known or 1 <= (self.memory or 0) < 2**63, where, "memory ≥ 1", self.memory)
        _expect(0 <= self.accuracy <= 1, where, "an accuracy in [0, 1]", self.accuracy)

    @property
    def key(self) -> str:
        """The kept counts as text, e.g. ``16-8-4``."""
        return kept_counts_key(self.kept_counts)

    @property
    def harms(self) -> bool:
        """Whether short runs with the vector made the network worse, in the mean."""
        return self.convergence < 0


def useful_front(
    points: Sequence[FrontPoint],
) -> tuple[tuple[FrontPoint, ...], tuple[FrontPoint, ...]]:
    """Tell what belongs on a front from what is non-dominated but harms.

    Parameters
    ----------
    points
        Verified vectors of one network, in any order.

    Returns
    -------
    useful
        The non-dominated points that gain 0 or more, by rising cost.
    harmful
        The other non-dominated points, by rising cost, all of them cheaper than the useful ones: a
        device does better to train nothing.
    """
    best = non_dominated([p.cost for p in points], [p.convergence for p in points])
    harmful = tuple(points[index] for index in best if points[index].harms)
    return tuple(points[index] for index in best[len(harmful) :]), harmful


@dataclass(frozen=True, repr=False)
class Front:
    """A named, immutable set of verified, mutually non-dominated dropout vectors.

    Parameters
    ----------
    name
        Letters, digits and ``_ . + -``; a version makes it unique in a storage.
    study
        Name of the study that was searched.
    model_fingerprint
        Hash of the network that the vectors are for.
    groups
        The channel groups of the network, in the order of rates and kept counts.
    cost_metric
        ``"macs"`` (training MACs per sample) or ``"latency"`` (seconds per training mini-batch).
    device
        Fingerprint of the device that latency was measured on; empty for MACs.
    reference_cost
        Cost of the full network, > 0.
    settings
        How the front was found (seed, sampler, trials, options …); anything JSON can hold.
    points
        By rising cost; none of them dominated by another.
    created_at
        ISO 8601 in UTC.
    version
        Given by the storage, from 1; 0 for a front that isn't stored yet.

    Raises
    ------
    FrontError
        Where a value doesn't fit this description.
    """

    name: str
    study: str
    model_fingerprint: str
    groups: tuple[FrontGroup, ...]
    cost_metric: str
    device: Mapping[str, Any] = field(hash=False)
    reference_cost: float
    settings: Mapping[str, Any] = field(hash=False)
    points: tuple[FrontPoint, ...]
    created_at: str = field(default_factory=utc_now)
    version: int = 0

    def __post_init__(self) -> None:
        where = f"front {self.name!r}"
        check_front_name(self.name)
        for what, text in (("study", self.study), ("model fingerprint", self.model_fingerprint)):
            _expect(text and text.isprintable(), where, f"a printable {what}", repr(text))
        _set(
            self,
            groups=tuple(self.groups),
            device=_json_copy(self.device, f"{where}: device"),
            reference_cost=_finite(self.reference_cost, f"{where}: reference cost"),
            settings=_json_copy(self.settings, f"{where}: settings"),
            points=tuple(self.points),
        )
        metrics = " or ".join(COST_UNITS)
        _expect(self.cost_metric in COST_UNITS, where, f"cost metric {metrics}", self.cost_metric)
        _expect(self.reference_cost > 0, where, "a reference cost > 0", self.reference_cost)
        _expect(_is_utc(self.created_at), where, "a creation time in UTC", repr(self.created_at))
        _expect(self.version >= 0, where, "a version of 0 or more", self.version)
        self._check_points(where)

    def _check_points(self, where: str) -> None:
        _expect(self.points, where, "at least one point", "none")
        widths = [group.channels for group in self.groups]
        for point in self.points:
            fits = len(point.rates) == len(point.kept_counts) == len(widths) and all(
                1 <= kept <= width for kept, width in zip(point.kept_counts, widths, strict=True)
            )
            _expect(
                fits,
                where,
                f"a rate and a kept count of 1 … channels for each of {kept_counts_key(widths)}",
                f"{len(point.rates)} rates and kept counts {point.key}",
            )
        for cheap, dear in pairwise(self.points):
            _expect(
                cheap.cost < dear.cost and cheap.convergence < dear.convergence,
                where,
                "cost and convergence to rise from point to point (see non_dominated)",
                f"({cheap.cost:g}, {cheap.convergence:g}) before "
                f"({dear.cost:g}, {dear.convergence:g})",
            )

    @property
    def label(self) -> str:
        """``name@version``, or the name alone for a front that isn't stored yet."""
        return f"{self.name}@{self.version}" if self.version else self.name

    @property
    def cost_unit(self) -> str:
        """Unit of all costs, for people."""
        return COST_UNITS[self.cost_metric]

    @property
    def harmful(self) -> tuple[FrontPoint, ...]:
        """The points that harm, by rising cost; searches of earlier versions left them in."""
        return tuple(point for point in self.points if point.harms)

    @property
    def cheapest_useful(self) -> FrontPoint | None:
        """The cheapest point that doesn't harm; all dearer ones don't either. None if all do."""
        return next((point for point in self.points if not point.harms), None)

    @cached_property
    def hypervolume(self) -> float:
        """The `hypervolume` of the points, relative to the cost of the full network."""
        return hypervolume(((p.cost, p.convergence) for p in self.points), self.reference_cost)

    def lookup(self, budget: float | str, memory: float | str | None = None) -> TableVector:
        """Return the best vector that a device affords; it trains the next mini-batch with it.

        Parameters
        ----------
        budget
            What the mini-batch may cost: a number in the front's cost unit (MACs per sample, or
            seconds), or text such as ``"20%"`` of the full network, ``"1.2M"`` or ``"12ms"``.
        memory
            What a training step may take, in bytes, or text such as ``"64MB"``: no vector that
            needs more is returned. None for no limit.

        Raises
        ------
        BudgetTooSmallError
            Where not even the cheapest vector fits.
        MemoryTooSmallError
            Where no vector fits into the memory, whatever its cost.
        FrontError
            Where there is a limit of memory, and the front doesn't tell what its vectors need.
        InputError
            Where a text can't be read.
        """
        from distreal_dse.fronts._budget_text import read_budget

        if isinstance(budget, str) or budget < 1:  # which may be meant as a share
            budget = read_budget(str(budget), self)
        return self._lookup_table(memory).pick(budget)

    def _lookup_table(self, memory: float | str | None) -> LookupTable:
        from distreal_dse.fronts._lookup import LookupTable

        if memory not in self._lookup_tables:
            self._lookup_tables[memory] = LookupTable(self, memory)
        return self._lookup_tables[memory]

    @cached_property
    def _lookup_tables(self) -> dict[float | str | None, LookupTable]:
        return {}

    def table(self) -> Any:
        """Return the points as a table, the cheapest first.

        Returns
        -------
        pandas.DataFrame or distreal_dse.support.tables.Rows
            Of pandas where it is installed. Columns are ``cost``, ``share of full``, ``gain``,
            ``standard error``, ``accuracy``, ``memory`` (bytes, None where it is not known),
            ``kept`` (counts of units, by channel group) and ``one rate``.
        """
        return make_table(
            {
                "cost": point.cost,
                "share of full": point.cost / self.reference_cost,
                "gain": point.convergence,
                "standard error": point.standard_error,
                "accuracy": point.accuracy,
                "memory": point.memory,
                "kept": point.key,
                "one rate": point.uniform,
            }
            for point in self.points
        )

    def __repr__(self) -> str:
        return f"<Front {self.label}: {len(self.points)} points, costs in {self.cost_unit}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head = f"<b>Front {escape(self.label)}</b>, costs in {self.cost_unit}"
        return head + str(self.table()._repr_html_())

    @property
    def uniform_hypervolume(self) -> float | None:
        """The `curve_hypervolume` of one rate for all layers, as verified beside the front.

        None where the settings hold no such family, as a front made elsewhere may not.
        """
        try:
            family = [(one["cost"], one["convergence"]) for one in self.settings["uniform family"]]
            return curve_hypervolume(family, self.reference_cost)
        except (KeyError, TypeError, FrontError):
            return None

    def content(self) -> dict[str, Any]:
        """All but the version, as plain values for JSON; `from_content` is the way back."""
        content = asdict(self)
        del content["version"]
        for point in content["points"]:
            if point["memory"] is None:  # fronts of before have the hashes that they had
                del point["memory"]
        return content

    @classmethod
    def from_content(cls, content: Mapping[str, Any], version: int = 0) -> Front:
        """Build a front from what `content` returned, or JSON made of it."""
        groups = tuple(FrontGroup(**group) for group in content["groups"])
        points = tuple(FrontPoint(**point) for point in content["points"])
        return cls(**{**content, "groups": groups, "points": points}, version=version)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the canonical JSON of the content."""
        canonical = json.dumps(
            self.content(), sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def check_hash(self, expected: str, where: str) -> None:
        """Refuse content that was changed since its hash was taken.

        Raises
        ------
        FrontError
            Naming ``where`` the front was read from, and both hashes.
        """
        if self.content_hash != expected:
            raise FrontError(
                f"{where}: the front was changed: expected content hash {expected[:12]}…, "
                f"found {self.content_hash[:12]}…; get an unchanged copy"
            )

    def check_model(self, fingerprint: str, what: str) -> None:
        """Refuse to use the front with another network than the one it was searched for.

        Parameters
        ----------
        fingerprint
            Of the network at hand.
        what
            Names that network in the error, e.g. ``"study digits"``.

        Raises
        ------
        FrontError
            Where the fingerprints differ.
        """
        if fingerprint != self.model_fingerprint:
            options = self.settings.get("options")
            with_options = f" with the options {options}" if options else ""
            raise FrontError(
                f"front {self.label} is for another model than {what}: expected model fingerprint "
                f"{self.model_fingerprint}, found {fingerprint}; use the study {self.study!r}"
                f"{with_options}, or search a front for this model with `distreal-dse optimize`"
            )


def _set(value: object, **fields: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, content in fields.items():
        object.__setattr__(value, name, content)


def _expect(holds: object, where: str, expected: str, found: object) -> None:
    if not holds:
        raise FrontError(f"{where}: expected {expected}, found {found}")


def _finite(value: float, what: str) -> float:
    """As a finite float; -0.0 turns into 0.0, as SQLite would do and so change the hash."""
    try:
        number = float(value) + 0.0
    except OverflowError:  # an integer of JSON has no largest value
        number = math.inf
    _expect(math.isfinite(number), what, "a finite number", number)
    return number


def _json_copy(mapping: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Copy as JSON would give it back, so that a front that was stored and read is equal."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(mapping), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise FrontError(f"{what}: expected values that JSON can hold, found: {error}") from error
    return copy


def _is_utc(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False
