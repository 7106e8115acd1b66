"""Writes the pages of the reference: the interface in Python, and the command line."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

FIRST = ("distreal_dse", "fl")
"""What most people need; its names are left out of the rooms."""

ROOMS = {
    "distreal_dse.dropout": "Dropout: groups, vectors, masks, sub-networks",
    "distreal_dse.cost": "Cost: MACs and latency",
    "distreal_dse.convergence": "Convergence: short runs",
    "distreal_dse.search": "Search",
    "distreal_dse.fronts": "Fronts: values, database, files, lookup",
    "distreal_dse.pricing": "Pricing: fronts in seconds of this device",
    "distreal_dse.errors": "Errors",
    "fl.strategies": "Federated: strategies",
    "fl.engine": "Federated: the engine",
    "fl.store.specs": "Federated: runs as text and numbers",
    "fl.results": "Federated: figures",
    "fl.testing": "Federated: tests for strategies of your own",
}
"""Modules for those who build on it, and their headings."""


def write_reference(folder: Path) -> None:
    """Write all generated pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {name for module in FIRST for name in public_names(module)}
    pages = {
        "python": "# The Python interface\n\n" + "".join(map(_first, FIRST)),
        "rooms": "# The rooms of the code\n\nFor those who extend it. "
        "[The Python interface](python.md) is what most people need.\n\n"
        + "".join(_room(module, heading, names) for module, heading in ROOMS.items()),
        "cli": command_line(),
    }
    for name, text in pages.items():
        place = folder / f"{name}.md"
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")


def public_names(module: str) -> list[str]:
    """Names that a module offers: those of its ``__all__``, else those that it defines."""
    found = import_module(module)
    own = [
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    ]
    return sorted(getattr(found, "__all__", own), key=str.lower)


def documented(module: str) -> list[str]:
    """Those of them that are functions or classes: what has a docstring."""
    found = import_module(module)
    return [
        name
        for name in public_names(module)
        if isinstance(value := getattr(found, name), type) or inspect.isroutine(value)
    ]


def command_line() -> str:
    """All commands and options, as Typer describes them."""
    from typer.cli import get_docs_for_click
    from typer.core import TyperGroup
    from typer.main import get_command

    from distreal_dse.cli._app import app

    command = get_command(app)
    assert isinstance(command, TyperGroup)
    context = command.context_class(command, info_name="distreal-dse")
    text: str = get_docs_for_click(obj=command, ctx=context, name="distreal-dse", title="x")
    return "# The command line\n" + text.partition("\n")[2]


def _first(module: str) -> str:
    return _described(module, module, documented(module))


def _room(module: str, heading: str, elsewhere: set[str]) -> str:
    names = [name for name in documented(module) if name not in elsewhere]
    return _described(module, heading, names)


def _described(module: str, heading: str, names: list[str]) -> str:
    lines = [f".. automodule:: {module}", "   :no-members:", ""]
    for name in names:
        is_class = isinstance(getattr(import_module(module), name), type)
        kind = "autoclass" if is_class else "autofunction"
        lines += [f".. {kind}:: {module}.{name}"]
        lines += ["   :members:", ""] if is_class else [""]
    return f"## {heading}\n\n```{{eval-rst}}\n" + "\n".join(lines) + "\n```\n\n"
