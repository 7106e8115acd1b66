"""Whether what was stored as JSON is of the types that a dataclass declares.

What lies in a database may have been written by another version, or by somebody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# Whole numbers from here on are no floats any more.
LARGEST = 2**1023


def is_of(value: object, kind: Any) -> bool:
    """Whether a value of JSON is of a type: a plain one, a union, a tuple or a dataclass of them.

    Parameters
    ----------
    value
        As `json.loads` gives it; tuples are lists there, and dataclasses objects.
    kind
        ``str``, ``int``, ``float``, ``bool``, ``None``, ``Literal``, ``tuple`` or a dataclass. A
        whole number is a ``float``, too; a truth value is no number. A dataclass has no fields
        but its own, and those without a default have to be there.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of(value, one) for one in arguments)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and _are_of(value, arguments)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping) and _has_fields(value, kind)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)
    return isinstance(value, kind)


def _are_of(values: list[object] | tuple[object, ...], kinds: tuple[Any, ...]) -> bool:
    if kinds[-1] is Ellipsis:
        return all(is_of(one, kinds[0]) for one in values)
    return len(values) == len(kinds) and all(map(is_of, values, kinds))


def _has_fields(values: Mapping[Any, object], kind: Any) -> bool:
    hints = get_type_hints(kind)
    own = {one.name: one for one in dataclasses.fields(kind) if one.init}
    missing = dataclasses.MISSING
    needed = {
        name
        for name, one in own.items()
        if one.default is missing and one.default_factory is missing
    }
    return needed <= values.keys() <= own.keys() and all(
        is_of(one, hints[name]) for name, one in values.items()
    )
