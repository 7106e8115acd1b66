"""Kept counts in tables of the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.text import Text


class KeptCounts:
    """A text with kept counts such as ``16-8-4``, whose lines end between numbers or words.

    Rich knows no place to break kept counts at, and would fold them within a number.

    Parameters
    ----------
    text
        Shown literally.
    """

    def __init__(self, text: str) -> None:
        self._pieces = re.split(r"(?<=\d-)(?=\d)|(?<=\s)(?=\S)", text)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Tell the narrowest and the widest that it can be."""
        from rich.cells import cell_len
        from rich.measure import Measurement

        widths = [cell_len(piece.rstrip()) for piece in self._pieces]
        return Measurement(max(widths, default=0), cell_len("".join(self._pieces)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the lines for the width that there is."""
        from rich.cells import cell_len
        from rich.text import Text

        lines = [""]
        for piece in self._pieces:
            if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > options.max_width:
                lines.append("")
            lines[-1] += piece
        yield Text("\n".join(line.rstrip() for line in lines))
