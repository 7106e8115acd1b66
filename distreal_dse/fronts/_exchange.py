"""The exchange file: a front as JSON, with a schema version and the hash of its content."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from distreal_dse.errors import FrontError, brief
from distreal_dse.fronts._front import Front
from distreal_dse.support.files import write_whole

SCHEMA = "distreal-front/1"
"""What this version writes and reads; the number rises when older versions can't read it."""
SCHEMA_WITH_MEMORY = "distreal-front/2"
"""The same, of a front that tells what its points need of memory."""

# The shape of the file: a dict has exactly these keys, a list holds any number of its one element,
# and the type ``dict`` is any JSON object.
_POINT: dict[str, Any] = {
    "rates": [float],
    "kept_counts": [int],
    "cost": float,
    "convergence": float,
    "standard_error": float,
    "replicates": int,
    "accuracy": float,
    "uniform": bool,
    "trial": (int, type(None)),
}
# A number as of floats: it may have more bits than other whole numbers.
_POINT_WITH_MEMORY = {**_POINT, "memory": (float, type(None))}
_FILE: dict[str, Any] = {
    "schema": str,
    "name": str,
    "study": str,
    "model_fingerprint": str,
    "groups": [{"name": str, "channels": int}],
    "cost_metric": str,
    "device": dict,
    "reference_cost": float,
    "settings": dict,
    "points": [_POINT],
    "created_at": str,
    "content_hash": str,
}
_BITS = 31  # without the sign: what a column of whole numbers holds in PostgreSQL
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    type(None): "null",
}


def export_front(front: Front, path: str | os.PathLike[str]) -> None:
    """Write a front to an exchange file, whole or not at all.

    Raises
    ------
    InputError
        Where the file can't be written.
    """
    has_memory = any(point.memory is not None for point in front.points)
    schema = SCHEMA_WITH_MEMORY if has_memory else SCHEMA
    document = {"schema": schema, **front.content(), "content_hash": front.content_hash}
    write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n", "the front")


def import_front(path: str | os.PathLike[str]) -> Front:
    """Read a front from an exchange file; its version is 0 until it is stored.

    Raises
    ------
    FrontError
        Where the file is missing, isn't an exchange file of this schema, or was changed.
    """
    where = str(path)
    document = _read_json(where)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema not in (SCHEMA, SCHEMA_WITH_MEMORY):
        raise FrontError(
            f"{where}: expected a front with schema {SCHEMA!r}, found "
            f"{brief(schema) if schema is not None else 'no schema'}; export it again with "
            f"`distreal-dse front export`, or update distreal-dse"
        )
    _check_shape(document, _shape_of(document), where)
    expected = document.pop("content_hash")
    del document["schema"]
    try:
        front = Front.from_content(document)
    except FrontError as error:
        raise FrontError(f"{where}: {error}") from error
    front.check_hash(expected, where)
    return front


def _shape_of(document: dict[str, Any]) -> dict[str, Any]:
    """The shape that a file of this schema has; a point needn't tell of memory."""
    if document["schema"] == SCHEMA:
        return _FILE
    points = document.get("points")
    for point in points if isinstance(points, list) else ():
        if isinstance(point, dict):
            point.setdefault("memory", None)
    return {**_FILE, "points": [_POINT_WITH_MEMORY]}


def _read_json(where: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant}, which is no number of JSON")

    try:
        return json.loads(Path(where).read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise FrontError(
            f"{where}: expected the exchange file of a front, found: {error.strerror}; "
            f"write one with `distreal-dse front export`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FrontError(
            f"{where}: expected a front as JSON, found: {error}; get an unchanged copy"
        ) from error


def _check_shape(value: Any, shape: Any, where: str) -> None:
    """Compare a JSON value with the shape that it has to have; ``where`` is its path."""
    if isinstance(shape, tuple):
        kinds = shape
    else:
        kinds = (shape if isinstance(shape, type) else type(shape),)
    # ``type`` and not ``isinstance``, because True is an int; whole numbers may stand for floats.
    if type(value) not in kinds and not (float in kinds and type(value) is int):
        names = " or ".join(_JSON_NAMES[kind] for kind in kinds)
        raise FrontError(f"{where}: expected {names}, found {brief(value)}; get an unchanged copy")
    if float not in kinds and type(value) is int and value.bit_length() > _BITS:
        raise FrontError(
            f"{where}: expected a whole number that fits into 32 bits, found {brief(value)}; get "
            "an unchanged copy"
        )
    if isinstance(shape, dict):
        for problem, keys in (("missing", shape.keys() - value), ("unknown", value.keys() - shape)):
            if keys:
                raise FrontError(
                    f"{where}: expected the keys of schema {SCHEMA!r}, found {problem} "
                    f"{', '.join(map(repr, sorted(keys)))}; get an unchanged copy"
                )
        for key, inner in shape.items():
            _check_shape(value[key], inner, f"{where}: {key}")
    elif isinstance(shape, list):
        for index, element in enumerate(value):
            _check_shape(element, shape[0], f"{where}[{index}]")
