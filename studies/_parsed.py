"""What takes long to parse out of a file, kept for the next process."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distreal_dse.support.files import replacing

Arrays = Mapping[str, npt.NDArray[Any]]
VERSION = 1  # of what is kept; other versions are parsed again


def parsed_once(source: Path, parse: Callable[[Path], Arrays]) -> Arrays:
    """Parse a file, unless that was done since it was changed last.

    A file counts as changed where its size or the time of its last change is another; reading
    gigabytes would take long. Who can't write to the cache directory parses each time.

    Parameters
    ----------
    source
        The file. What was kept of it before is replaced.
    parse
        Gives arrays without objects, by name.
    """
    try:
        found = source.stat()
        place = _place(source)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return parse(source)
    stamp = f"{VERSION} {found.st_size} {found.st_mtime_ns}"
    try:
        with np.load(place, allow_pickle=False) as kept:
            if kept["stamp"].item() == stamp:
                return dict(kept)
    except Exception:  # whatever is wrong with it, the source is there
        pass
    arrays = parse(source)
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        contents: dict[str, Any] = {**arrays, "stamp": np.array(stamp)}
        with replacing(place) as file:
            np.savez_compressed(file, **contents)
    return arrays


def _place(source: Path) -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    # Relative paths are to be ignored, by the XDG base directory specification.
    cache = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    name = sha256(os.fsencode(source.resolve())).hexdigest()
    return cache / "distreal-dse" / "parsed" / f"{name}.npz"
