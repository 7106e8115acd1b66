"""Options that several commands share, as the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter
from typing import Any, get_type_hints


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take the fields of a dataclass as options, where it has one as a parameter.

    Typer reads a command's signature and knows no groups of options. So the signature that it
    reads has the fields in place of the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    name, group = next(
        (name, kind)
        for name, kind in hints.items()
        if isinstance(kind, type) and is_dataclass(kind)
    )
    kinds = get_type_hints(group, include_extras=True)
    shared = [
        Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=kinds[one.name])
        for one in fields(group)
    ]
    parameters: list[Parameter] = []
    for one in inspect.signature(command).parameters.values():
        own = one.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[one.name])
        parameters += shared if one.name == name else [own]

    @wraps(command)
    def expanded(**given: Any) -> None:
        asked = group(**{one.name: given.pop(one.name) for one in shared})
        command(**given, **{name: asked})

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {one.name: one.annotation for one in parameters}
    return expanded
