"""Studies that a program holds as objects, such as those of a notebook, and no file names.

A database can't hold such a study, and what it would hold, nobody should run. So a run that
trained one names it ``python:NAME``, and goes on only where the same object is given again.
Worker processes of the program that holds it get a copy: cloudpickle sends functions of a notebook
or a script by value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from distreal_dse.errors import StudyError, described
from distreal_dse.study import Study
from distreal_dse.study.catalogue import OBJECT, StudySource


@dataclass(frozen=True)
class GivenStudy:
    """A study as an object of this program, where `StudySource` is one by name or file.

    Parameters
    ----------
    study
        With a name.
    changes
        Fields of the study that are replaced.

    Raises
    ------
    StudyError
        If it has no name.
    """

    study: Study
    changes: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.study.name:
            raise StudyError(
                "a Study object: expected a name, under which its search and runs are stored, "
                "found none; write Study(name='my-study', …)"
            )

    @property
    def spec(self) -> str:
        """What the database has in place of a file."""
        return OBJECT + self.study.name

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """None: whoever made the object has chosen them."""
        return ()

    def load(self) -> Study:
        """Return the study, with the changes."""
        return replace(self.study, **dict(self.changes))

    def check_portable(self) -> None:
        """Refuse a study that can't be sent to worker processes.

        Raises
        ------
        StudyError
            If there is something in it that can't be copied.
        """
        self._packed()

    def __reduce__(self) -> tuple[type[_Packed], tuple[str, bytes]]:
        return _Packed, (self.study.name, self._packed())

    def _packed(self) -> bytes:
        import cloudpickle

        try:
            packed: bytes = cloudpickle.dumps(self.load())
        except Exception as error:  # the user's functions may refer to anything
            _refuse(self.study.name, error)
        return packed


def source_of(
    study: object,
    options: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    workers: int = 1,
) -> StudySource | GivenStudy:
    """Return where a study comes from that a caller in Python gives.

    Parameters
    ----------
    study
        A `Study`, the name of a shipped one, or the path of a file.
    options
        Of a study that is a function, by name.
    changes
        Fields of the study that are replaced.
    workers
        Processes that it has to be sent to, if more than 1.

    Raises
    ------
    StudyError
        If it is none of these, a `Study` comes with options or has no name, or it can't be sent.
    """
    given = tuple(sorted((name, str(value)) for name, value in (options or {}).items()))
    changed = tuple((changes or {}).items())
    if isinstance(study, (str, os.PathLike)):
        return StudySource(os.fspath(study), given, changed)
    if not isinstance(study, Study):
        raise StudyError(
            "study: expected a Study, the name of a shipped one or the path of a .py file, found "
            f"a {type(study).__name__}"
        )
    if given:
        raise StudyError(
            f"study {study.name} takes no options: expected them in the Study itself, as it is an "
            f"object, found {', '.join(name for name, _ in given)}"
        )
    source = GivenStudy(study, changed)
    if workers > 1:
        source.check_portable()
    return source


@dataclass(frozen=True)
class _Packed:
    """A study on its way to a worker process, which unpacks it where errors show."""

    name: str
    content: bytes
    options: tuple[tuple[str, str], ...] = ()

    def load(self) -> Study:
        import pickle

        try:
            study: Study = pickle.loads(self.content)  # of the program that started this process
        except Exception as error:
            _refuse(self.name, error)
        return study


def _refuse(name: str, error: Exception) -> NoReturn:
    raise StudyError(
        f"study {name} can't be sent to worker processes ({described(error)}): expected functions "
        "that refer to nothing but data, functions and importable modules; take workers=1, or "
        "write the study into a file and give its path"
    ) from error
