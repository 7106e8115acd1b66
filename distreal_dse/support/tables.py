"""Tables for people who work in Python: of pandas where it is installed, else of plain rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any


def make_table(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Return a `pandas.DataFrame` where pandas can be imported, else `Rows`.

    ``table["accuracy"]`` is a column in both, and ``len(table)`` the number of rows.

    Parameters
    ----------
    rows
        One mapping from column to value for each; a column that a row lacks is None there.
    """
    listed = [dict(row) for row in rows]
    columns = list(dict.fromkeys(name for row in listed for name in row))
    filled = [{name: row.get(name) for name in columns} for row in listed]
    try:
        import pandas
    except ImportError:
        return Rows(filled)
    return pandas.DataFrame(filled, columns=columns)


class Rows:
    """Rows of a table: iterated, they are dicts of the same columns.

    Parameters
    ----------
    rows
        One dict for each.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = list(rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._rows[0]) if self._rows else []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __getitem__(self, column: str) -> list[Any]:
        return [row[column] for row in self._rows]

    def __repr__(self) -> str:
        cells = [self.columns, *([_text(value) for value in row.values()] for row in self._rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in cells
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(value))}</td>" for value in row.values()) + "</tr>"
            for row in self._rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
