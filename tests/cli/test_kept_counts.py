"""Tables in the terminal, as narrow as people make it."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from distreal_dse.cli._console import front_table
from distreal_dse.fronts import FrontGroup, FrontPoint
from front_examples import make_front

WIDTHS = tuple(100 + 91 * index for index in range(20))


@pytest.mark.parametrize("width", [80, 83, 100, 300])
def test_kept_counts_break_between_numbers(width: int) -> None:
    point = FrontPoint((0.0,) * 20, WIDTHS, 1600.0, 0.5, 0.01, 8, 0.5, uniform=True)
    front = make_front(groups=tuple(FrontGroup(f"c{i}", n) for i, n in enumerate(WIDTHS)),
                       points=(point,))  # fmt: skip
    console = Console(width=width, record=True, file=StringIO())
    console.print(front_table(front))
    rows = [re.split("[│┃]", line) for line in console.export_text().splitlines()]
    column = [row[-3].strip() for row in rows if len(row) > 6]
    whole = "-".join(map(str, WIDTHS))
    assert " ".join(column).replace("- ", "-") == f"kept units of {whole} {whole}"
    assert max(map(len, column)) <= width
    for line in column:  # each number is one of the counts, and the longest lines use their room
        assert set(map(int, re.findall(r"\d+", line))) <= set(WIDTHS)
    assert len(column) == 2 or width < 300
