"""Modules of a user that have the names of packages of ours: found, and refused by name.

Three of our packages have names that a project of a user may have as well. Python takes what it
finds first, and the working folder, ``$PYTHONPATH`` and the folder of a study file come first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from distreal_dse.errors import InputError, StudyError

HOME = Path(__file__).resolve().parents[2]
"""The folder that our packages are installed in."""

PACKAGES = ("dashboards", "fl", "studies")
"""Those beside ``distreal_dse``."""


def shadowed_packages() -> dict[str, str]:
    """Packages of ours in whose place Python finds something else, and what that is."""
    found = {name: _place(find_spec(name)) for name in PACKAGES}
    return {
        name: "none" if place is None else str(place)
        for name, place in found.items()
        if place != HOME / name
    }


def claim_packages() -> None:
    """Import our packages, so that what is found first from here on can't take their place.

    Raises
    ------
    InputError
        If something else is found already.
    """
    for name, place in shadowed_packages().items():
        raise InputError(
            f"package {name} of distreal-dse: expected {HOME / name}, found {place}, which shadows "
            "it: rename that, or start where neither the working folder nor $PYTHONPATH leads to it"
        )
    for name in PACKAGES:
        import_module(name)


@contextmanager
def importing_beside(file: Path) -> Iterator[None]:
    """Import a study file as if it were run as a script: what lies beside it is found first.

    Where modules beside it have names of ours, they are what the file gets, but then it is refused:
    a process has only one module of a name.

    Raises
    ------
    StudyError
        If the file, or what it imports, has imported such a module.
    """
    folder = file.resolve().parent
    rivals = () if folder == HOME else _regular_modules(folder)
    ours = {name: sys.modules.pop(name) for name in _loaded(rivals)}
    sys.path.insert(0, str(folder))
    try:
        yield
    except StudyError as error:
        if name := _missing(error.__cause__, folder):
            raise _refused(file, name, folder) from error
        raise
    finally:
        sys.path.remove(str(folder))
        taken = [name for name in rivals if name in sys.modules]
        for name in _loaded(rivals):
            del sys.modules[name]
        sys.modules.update(ours)
        if taken:
            raise _refused(file, taken[0], folder)


def _refused(file: Path, name: str, folder: Path) -> StudyError:
    return StudyError(
        f"study file {file} imports {name}, which is a package of distreal-dse and a module beside "
        f"the file, in {folder}: expected a name of its own; rename the one beside the file"
    )


def _missing(error: BaseException | None, folder: Path) -> str:
    """The name of ours that was asked for what only a folder without ``__init__.py`` can have."""
    name = ((error.name or "") if isinstance(error, ImportError) else "").partition(".")[0]
    return name if name in PACKAGES and (folder / name).is_dir() and folder != HOME else ""


def _regular_modules(folder: Path) -> tuple[str, ...]:
    """Names of ours that a folder has modules or packages of, and not only a plain folder."""
    specs = {name: PathFinder.find_spec(name, [str(folder)]) for name in PACKAGES}
    return tuple(name for name, spec in specs.items() if spec is not None and spec.origin)


def _loaded(names: tuple[str, ...]) -> list[str]:
    """Imported modules that are, or are part of, those of these names."""
    return [module for module in sys.modules if module.partition(".")[0] in names]


def _place(spec: ModuleSpec | None) -> Path | None:
    """The folder of a package, or the file of a module."""
    if spec is None:
        return None
    folders = spec.submodule_search_locations
    return Path(str(next(iter(folders)) if folders else spec.origin)).resolve()
