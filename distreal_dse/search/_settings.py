"""What the user asks of a search, and what the search says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distreal_dse.budgets import Budgets
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import StudyError
from distreal_dse.fronts import Pilot
from distreal_dse.search.proposer import DEFAULT
from distreal_dse.study import Study
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.given import GivenStudy


@dataclass(frozen=True)
class SearchSettings:
    """What the user asks for.

    Parameters
    ----------
    source
        The study.
    name
        Of the search and its front; the study's name where it is left empty.
    trials
        How many finished trials the search ends with, those of earlier starts included.
    runs
        Short runs after which no new trial is begun, those of earlier starts included, those of the
        verification not; None for no limit. In fits, each trial counts as two.
    timeout
        Seconds after which no new trial is begun; None for no limit.
    workers
        Local processes; 1 evaluates in this process.
    sampler
        One of `SAMPLERS`.
    seed
        Of the network's initialisation, data orders, masks and the sampler.
    device
        ``"cpu"`` or ``"cuda"``.
    cost
        ``"macs"`` or ``"latency"``.
    fleet
        Budgets that a table is fitted to; None searches vectors on their own. The trials are
        then curves (see `distreal_dse.search.CurveSpace`).
    whole_fleet
        Whether budgets of the fleet that no vector fits are refused; else they are left out.
    pilot
        Whether the search ends early where its first trials show that it does not pay. A search of
        fewer trials than a pilot has goes without.
    join
        Whether to work on the search together with all other processes that do so with `join`.
    memory
        Bytes that a training step may take: vectors that need more are not in the space. None for
        no limit.
    """

    source: StudySource | GivenStudy
    name: str = ""
    trials: int = 100
    runs: int | None = None
    timeout: float | None = None
    workers: int = 1
    sampler: str = DEFAULT
    seed: int = 0
    device: str = "cpu"
    cost: str = "macs"
    fleet: Budgets | None = None
    whole_fleet: bool = True
    pilot: bool = True
    join: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is.

    ``stage`` is ``"warm-up"`` (mini-batches), ``"search"`` or ``"fit"`` (trials), ``"pilot"``,
    ``"verification"`` or ``"points"`` (short runs), or ``"latency"`` (rounds of measurement);
    ``done`` of ``total`` are finished. ``non_dominated`` and ``hypervolume`` describe the trials so
    far. ``pilot`` is there once, when it has ended, and with it the seconds that the rest takes,
    about, if it goes on (0 where that is not known).
    """

    stage: str
    done: int
    total: int
    failed: int = 0
    non_dominated: int = 0
    hypervolume: float = 0.0
    pilot: Pilot | None = None
    seconds_left: float = 0.0


Listener = Callable[[SearchProgress], None]


def check_granularity(study: Study, network: DroppableNetwork) -> None:
    """Refuse a granularity with which there is nothing to drop.

    Raises
    ------
    StudyError
        If it is not less than the channels of the widest group.
    """
    widest = max(network.channels.widths)
    if 1 < study.granularity >= widest:
        raise StudyError(
            f"granularity of study {study.name} is {study.granularity}: expected less than the "
            f"{widest} channels of the widest group, or there is nothing to drop"
        )
