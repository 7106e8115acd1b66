"""Which study files this user gave to a command or a call himself, on this machine.

A stored run names the file of its study, and to import a file is to run it. Whoever can write to
the database could name any file. So a path from a database is imported only where this record,
which lies outside of the database, says that this user gave that file before, with these bytes.
Modules that a study file imports are not covered: they are whatever lies beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from distreal_dse.errors import StudyError
from distreal_dse.support.files import replacing


@dataclass(frozen=True)
class _Given:
    """A study file as it was given last: its path, the SHA-256 of its bytes, its name."""

    file: str
    sha256: str
    name: str

    @property
    def unchanged(self) -> bool:
        try:
            return self.sha256 == _hash(self.file)
        except OSError:
            return False


# What this process was given counts where nothing can be written, too.
_given_here: dict[str, _Given] = {}


def trust(file: str | os.PathLike[str], name: str) -> None:
    """Remember that the user gave this file, of the study of this name, as it is now.

    To be called for files whose paths do not come from a database. Where nothing can be written,
    this process alone remembers.
    """
    with suppress(OSError):
        path = _resolved(file)
        given = _Given(path, _hash(path), name)
        _given_here[path] = given
        place = _place(path)
        if place is None:
            return
        if _read(place) == given:
            os.utime(place)  # it is the newest again
            return
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(place) as target:
            target.write(json.dumps(asdict(given)).encode())


def trusted(file: str | os.PathLike[str], subject: str) -> Path:
    """Return the path to import of a study file that a database names, if the user gave it before.

    Parameters
    ----------
    file
        As the database has it.
    subject
        What names it there, such as ``"run 7"``.

    Raises
    ------
    StudyError
        If the user never gave it here, or it was changed since.
    """
    path = _resolved(file)
    known = [given for given in (_given_here.get(path), _read(_place(path))) if given is not None]
    if not any(given.file == path for given in known):
        raise StudyError(
            f"{subject} names the study file {str(file)!r}: expected one that you gave to a "
            "command on this machine before, found none such; if you trust a copy of it, give "
            "that with --study FILE"
        )
    if os.path.exists(path) and not any(given.unchanged for given in known):
        raise StudyError(
            f"{subject} names the study file {str(file)!r}: expected it as you gave it to a "
            "command last, found it changed; if you trust it as it is, give it with --study FILE"
        )
    return Path(path)


def trusted_file(name: str) -> Path | None:
    """Return the study file that the user gave for a study of this name; the newest of several.

    None where there never was one.

    Raises
    ------
    StudyError
        If there are such files, but all of them are changed or gone.
    """
    found = {one.file: one for one in (*_stored(), *_given_here.values()) if one.name == name}
    if not found:
        return None
    for one in reversed(found.values()):
        if one.unchanged:
            return Path(one.file)
    newest = list(found)[-1]
    raise StudyError(
        f"study '{name}' was given as the file {newest} last: expected it as it was then, found "
        f"it {'changed' if os.path.exists(newest) else 'gone'}; give its file with --study FILE"
    )


def _resolved(file: str | os.PathLike[str]) -> str:
    """The path that is imported: modules beside a link count, not those beside what it leads to."""
    path = Path(file)
    return str(path.parent.resolve() / path.name)


def _folder() -> Path | None:
    from platformdirs import user_state_path

    folder = user_state_path("distreal-dse", appauthor=False) / "studies"
    return folder if folder.is_absolute() else None  # nobody knows a home of this user


def _place(path: str) -> Path | None:
    """The file that remembers a path: one for each, so that processes need not take turns."""
    folder = _folder()
    return folder and folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.json"


def _read(place: Path | None) -> _Given | None:
    if place is None:
        return None
    try:
        return _Given(**json.loads(place.read_bytes()))
    except (OSError, TypeError, ValueError):
        return None


def _stored() -> list[_Given]:
    """All that is remembered, the newest last."""
    folder = _folder()
    dated = []
    for place in folder.glob("*.json") if folder is not None else ():
        given = _read(place)
        with suppress(OSError):
            dated.append((place.stat().st_mtime_ns, given))
    dated.sort(key=lambda item: item[0])
    return [given for _, given in dated if given is not None]


def _hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
