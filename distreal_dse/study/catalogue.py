"""Finds and loads studies: the shipped ones by name, a user's own by the path of its file."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distreal_dse.errors import DistrealError, StudyError, described
from distreal_dse.study.shadows import HOME, claim_packages, importing_beside
from distreal_dse.study.trusted import trust
from distreal_dse.support.compat import help_torchvision
from distreal_dse.support.specs import did_you_mean, slug

if TYPE_CHECKING:
    from distreal_dse.study import Study


SHIPPED = HOME / "studies"
OBJECT = "python:"
"""Begins what a database has in place of a file, for a study that was given as an object."""


def shipped_studies() -> list[str]:
    """Names of the studies that come with this package."""
    modules = (module.name for module in pkgutil.iter_modules([str(SHIPPED)]))
    return sorted(name.replace("_", "-") for name in modules if not name.startswith("_"))


def shipped_description(name: str) -> str:
    """Read the description of a shipped study; empty where it is no literal.

    It is read from the source: importing all of them would take seconds, for PyTorch and
    scikit-learn.
    """
    source = (SHIPPED / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "description":
            return str(node.value.value) if isinstance(node.value, ast.Constant) else ""
    return ""


def study_file_beside(name: str) -> str | None:
    """Return the path of a study file that somebody may mean who writes its name alone."""
    for stem in dict.fromkeys((name, name.replace("-", "_"))):
        if Path(f"{stem}.py").is_file():
            return f"./{stem}.py"
    return None


@dataclass(frozen=True)
class StudySource:
    """Where a study comes from; small enough to hand to another process.

    ``spec`` is the name of a shipped study or the path of a file, ``options`` are arguments of
    the file's ``study`` function, as text. ``changes`` are fields of the `Study` that replace those
    of the file, in every process that loads it.
    """

    spec: str
    options: tuple[tuple[str, str], ...] = ()
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether ``spec`` is a path rather than a name."""
        return not self.is_object and (self.spec.endswith(".py") or "/" in self.spec)

    @property
    def is_object(self) -> bool:
        """Whether it was an object of a Python program, which alone can load it."""
        return self.spec.startswith(OBJECT)

    def load(self) -> Study:
        """Import the study; from then on, its file is one that the user trusts.

        A path that a database names goes through `distreal_dse.study.trusted.trusted` first.

        Raises
        ------
        StudyError
            If there is no such study, its file fails to import, it lacks the object ``study``, or
            an option or a change does not fit.
        InputError
            If modules of the user have taken the place of a package of ours.
        """
        from distreal_dse.study import Study

        if self.is_object:
            name = self.spec.removeprefix(OBJECT)
            raise StudyError(
                f"study '{name}' was given as an object of a Python program: expected that object, "
                "found its name alone; give the object again in Python, as in "
                "fl.resume(RUN, study=…), or write it into a file and give that with --study FILE"
            )
        claim_packages()
        help_torchvision()
        module = self._import_file() if self.is_file else self._import_shipped()
        found = getattr(module, "study", None)
        if found is None:
            raise StudyError(
                f"study file {module.__file__} has no object named 'study': expected a Study or a "
                "function that returns one"
            )
        if isinstance(found, Study):
            if self.options:
                raise StudyError(
                    f"study {self.spec} takes no options: found "
                    + ", ".join(name for name, _ in self.options)
                )
            study = found
        else:
            study = self._call(found)
        name = study.name or slug(Path(str(module.__file__)).stem.replace("_", "-"))
        study = replace(study, name=name, **dict(self.changes))
        if self.is_file:
            trust(self.spec, name)
        return study

    def _import_shipped(self) -> types.ModuleType:
        names = shipped_studies()
        if self.spec not in names:
            if beside := study_file_beside(self.spec):
                raise StudyError(
                    f"study '{self.spec}' is not known, but there is a file of this name: did you "
                    f"mean {beside}?"
                )
            near = did_you_mean(self.spec, names, 0.3) or f"; did you mean {' or '.join(names)}?"
            raise StudyError(
                f"study '{self.spec}' is not known{near} "
                "A study of your own is given by the path of its file, such as ./my_study.py"
            )
        return importlib.import_module(f"studies.{self.spec.replace('-', '_')}")

    def _import_file(self) -> types.ModuleType:
        path = Path(self.spec)
        if not path.is_file():
            raise StudyError(f"study file {path} does not exist: expected a Python file")
        name = f"user_study_{path.stem}"
        loading = importlib.util.spec_from_file_location(name, path)
        if loading is None or loading.loader is None:
            raise StudyError(f"study file {path} can't be imported: expected a name ending in .py")
        module = importlib.util.module_from_spec(loading)
        sys.modules[name] = module  # dataclasses and pickle look a class's module up here
        with importing_beside(path):
            try:
                loading.loader.exec_module(module)
            except (Exception, SystemExit) as error:  # the user's file may raise anything
                del sys.modules[name]
                raise StudyError(
                    f"study file {path} fails to import: {_located(error, path)}"
                ) from error
        return module

    def _call(self, make: Callable[..., Any]) -> Study:
        from distreal_dse.study import Study

        if not callable(make):
            raise StudyError(
                f"object 'study' of {self.spec} is a {type(make).__name__}: expected a Study or a "
                "function that returns one"
            )
        arguments = _converted(dict(self.options), make, self.spec)
        try:
            study = make(**arguments)
        except DistrealError:
            raise
        except Exception as error:  # the user's function may raise anything
            raise StudyError(f"study {self.spec} can't be made: {described(error)}") from error
        if not isinstance(study, Study):
            raise StudyError(
                f"function 'study' of {self.spec} returned a {type(study).__name__}: expected a "
                "Study"
            )
        return study


def _located(error: BaseException, path: Path | None = None) -> str:
    """Kind and message of an error, and the line of the user's file that it comes from."""
    line, traceback = 0, error.__traceback__
    if isinstance(error, SyntaxError) and error.lineno:
        line = error.lineno
    while traceback is not None and path is not None:
        if Path(traceback.tb_frame.f_code.co_filename) == path.absolute():
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return described(error) + (f" (line {line})" if line else "")


def _converted(options: Mapping[str, str], make: Callable[..., Any], spec: str) -> dict[str, Any]:
    """Options as the types that the function's annotations ask for."""
    parameters = inspect.signature(make).parameters
    try:
        hints = typing.get_type_hints(make)
    except NameError as error:
        raise StudyError(
            f"annotations of the options {', '.join(parameters)} of study {spec} can't be read: "
            f"{error}"
        ) from error
    converted = {}
    for name, text in options.items():
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise StudyError(f"study {spec} has no option '{name}': expected one of: {known}")
        hint = hints.get(name, str)
        choices = (hint,)
        if typing.get_origin(hint) in (typing.Union, types.UnionType):  # such as int | None
            choices = tuple(kind for kind in typing.get_args(hint) if kind is not type(None))
        if len(choices) != 1 or choices[0] not in _CONVERSIONS:
            raise StudyError(
                f"option '{name}' of study {spec} is annotated {hint}: expected one of "
                + ", ".join(kind.__name__ for kind in _CONVERSIONS)
            )
        try:
            converted[name] = _CONVERSIONS[choices[0]](text)
        except ValueError as error:
            raise StudyError(
                f"option {name}={text} of study {spec}: expected {choices[0].__name__}"
            ) from error
    return converted


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise ValueError(text)
    return text.lower() in ("true", "1", "yes")


_CONVERSIONS: Mapping[Any, Callable[[str], Any]] = {
    bool: _boolean,
    float: float,
    int: int,
    str: str,
    Path: lambda text: Path(text).expanduser().resolve(),
}
