"""What is measured: some vectors of a study's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from distreal_dse.dropout import DroppableNetwork, KeptCounts, kept_counts
from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import ChannelCounts, Front, find_front
from distreal_dse.study import Study
from distreal_dse.study.catalogue import StudySource, shipped_studies, study_file_beside
from distreal_dse.study.given import GivenStudy
from distreal_dse.study.preparation import prepare_network
from distreal_dse.study.trusted import trusted_file

DEFAULT_RATES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


@dataclass(frozen=True)
class Wanted:
    """How the user names what is measured, apart from the study or front itself.

    Parameters
    ----------
    options
        Options of the study; they add to those that a front was searched with.
    study
        The study of a front: its file, or an object of this program. None where it is a shipped
        one, or one whose file this user gave before.
    rates
        Uniform rates of a study; None for `DEFAULT_RATES`.
    input_shape
        Of one sample; None for the study's own.
    seed
        Of the network's initialisation.
    device
        ``"cpu"`` or ``"cuda"``.
    """

    options: tuple[tuple[str, str], ...] = ()
    study: str | GivenStudy | None = None
    rates: tuple[float, ...] | None = None
    input_shape: tuple[int, ...] | None = None
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Subject:
    """Vectors of a network; ``front`` is the front that they come from, if they do."""

    study: Study
    network: DroppableNetwork
    input_shape: tuple[int, ...]
    vectors: tuple[KeptCounts, ...]
    front: Front | None = None

    @property
    def channel_counts(self) -> ChannelCounts:
        """What its kept counts are in channels."""
        return ChannelCounts(self.network.channels.channels_per_unit)

    @property
    def label(self) -> str:
        """Names it for people."""
        return f"front {self.front.label}" if self.front else f"study {self.study.name}"


def find_subject(spec: str, wanted: Wanted, engine: Engine) -> Subject:
    """Get what ``spec`` names.

    The path of a .py file is a study, ``NAME@VERSION`` and the path of a .json file are fronts.
    A plain name is a front where one of that name is stored, else a study; with ``rates`` it is a
    study.

    Raises
    ------
    FrontError
        If the front is not there, or for another model.
    DataError, InputError, StudyError, UnsupportedModelError
        If the study, its model or data can't be used.
    StorageError
        If the database can't be read.
    """
    source = StudySource(spec, wanted.options)
    is_front = "@" in spec or spec.lower().endswith(".json")
    if not is_front and (source.is_file or wanted.rates is not None):
        return _subject_of_study(source, wanted)
    try:
        front = find_front(engine, spec)
    except FrontError as error:
        if is_front:
            raise
        if spec in shipped_studies():
            return _subject_of_study(source, wanted)
        beside = study_file_beside(spec) or "a study of `distreal-dse studies`"
        raise FrontError(f"{error}, or give {beside}") from error
    if wanted.rates is not None:
        raise InputError(f"--rates are for a study: {spec} is a front, whose points are measured")
    return subject_of_front(front, wanted)


def source_of_front(front: Front, wanted: Wanted) -> StudySource | GivenStudy:
    """The study that a front was searched for, with the options of the search.

    A front names its study, and no file: what a database or an exchanged file says is not imported.
    A user's own study is the file that he gave for this name last.

    Raises
    ------
    InputError
        If it is not a shipped one, no file is given, and none is remembered, or it was changed.
    """
    if isinstance(wanted.study, GivenStudy):
        return wanted.study
    spec = wanted.study or front.study
    if wanted.study is None and spec not in shipped_studies():
        file = trusted_file(front.study)
        if file is None:
            raise InputError(
                f"front {front.label} was searched for the study '{spec}', which is not a shipped "
                "one, and you gave no file of this name here before: give it with --study FILE, or "
                "the Study object where it is one"
            )
        spec = str(file)
    searched = front.settings.get("options")
    options = dict(searched) if isinstance(searched, Mapping) else {}
    options.update(wanted.options)
    return StudySource(spec, tuple(sorted(options.items())))


def subject_of_front(front: Front, wanted: Wanted) -> Subject:
    """The points of a front.

    Raises
    ------
    FrontError
        If the study's model is another than that of the front.
    DataError, InputError, StudyError, UnsupportedModelError
        If the study, its model or data can't be used.
    """
    source = source_of_front(front, wanted)
    study = source.load()
    network, shape = prepare_network(study, wanted.seed, wanted.device, wanted.input_shape)
    where = f" ({source.spec})" if isinstance(source, StudySource) and source.is_file else ""
    what = f"study {study.name}{where} with inputs {shape}"
    front.check_model(network.channels.fingerprint, what)
    return Subject(study, network, shape, tuple(point.kept_counts for point in front.points), front)


def _subject_of_study(source: StudySource, wanted: Wanted) -> Subject:
    study = source.load()
    network, shape = prepare_network(study, wanted.seed, wanted.device, wanted.input_shape)
    vectors = uniform_vectors(network, wanted.rates or DEFAULT_RATES, study.granularity)
    return Subject(study, network, shape, vectors)


def uniform_vectors(
    network: DroppableNetwork, rates: Sequence[float], granularity: int
) -> tuple[KeptCounts, ...]:
    """Distinct kept counts of one rate for all groups."""
    groups = network.groups
    return tuple(
        dict.fromkeys(kept_counts([rate] * len(groups), groups, granularity) for rate in rates)
    )
