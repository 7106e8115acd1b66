"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from distreal_dse.errors import InputError


def write_whole(path: str | os.PathLike[str], text: str, what: str) -> None:
    """Write text as UTF-8; whoever reads the path finds the old file or all of the new one.

    Parameters
    ----------
    path
        Replaced where it is there.
    text
        All of it.
    what
        Names the content in the error, e.g. ``"the report"``.

    Raises
    ------
    InputError
        If the file can't be written.
    """
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise InputError(
            f"{path}: {what} can't be written: expected a writable file, found: "
            f"{error.strerror}; give another path"
        ) from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the place of ``path`` where that ends well.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    path = Path(path)
    # No two writers share a name, not in containers with one home either.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
