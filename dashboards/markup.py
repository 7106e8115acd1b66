"""Parts of the HTML page: whatever text goes into them is shown literally."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from dashboards.findings import plain

# Kept counts of more groups than a narrow line holds; shorter ones, and dates, needn't break.
_COUNTS = re.compile(r"\d+(?:-\d+){3,}")


def figure_card(figure: go.Figure, heading: str, text: str, caption: str) -> str:
    """A figure on a card; its title stands above it as a heading, which can wrap."""
    # HTML escapes mean nothing inside a script; Plotly's JSON writes <, > and / as \\u003c etc.
    top = figure.layout.margin.t - 20 * (1 + figure.layout.title.text.count("<br>"))
    bare = go.Figure(figure).update_layout(title=None, margin={"t": top})
    return (
        f'<figure class="card"><h3>{escaped(heading)}</h3>\n'
        f'<div class="chart" role="img" aria-label="{escaped(text)}" '
        f'style="height: {bare.layout.height:d}px"></div>'
        f'<script type="application/json">{bare.to_json(engine="json")}</script>\n'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    text: Collection[int] = (),
    wrapped: Collection[int] = (),
) -> str:
    """A table that scrolls sideways.

    Parameters
    ----------
    caption, heads, rows
        Texts.
    text
        Columns that align left.
    wrapped
        Those of them whose texts may take several lines where there is little room.
    """

    def line(tag: str, cells: Sequence[str], scope: str = "") -> str:
        return "".join(
            f'<{tag} class="{_kind(cell, column in text)}{" names" if column in wrapped else ""}"'
            f"{scope}>{breakable(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )

    head = line("th", heads, ' scope="col"')
    body = "\n".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}">'
        f"<table><caption><span>{breakable(caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def fact_list(facts: Mapping[str, Any]) -> str:
    """Names and values, a line each."""
    return f"<dl>{''.join(map(_fact, facts, facts.values()))}</dl>"


def _fact(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        inner = (f"{key}: {json.dumps(item, ensure_ascii=False)}" for key, item in value.items())
        text = ", ".join(inner) or "none"
    return f"<dt>{escaped(name)}</dt><dd>{breakable(text)}</dd>"


def details(summary: str, content: str) -> str:
    """Content, itself HTML, that is shown when its summary is clicked."""
    return f'<details class="card"><summary>{escaped(summary)}</summary>{content}</details>'


def breakable(text: str) -> str:
    """The same as `escaped`, in which kept counts such as ``16-8-4-2`` break between numbers."""
    return _COUNTS.sub(lambda counts: counts[0].replace("-", "-<wbr>"), escaped(text))


def _kind(cell: str, text: bool) -> str:
    """Classes of a cell of a table."""
    return ("text counts" if _COUNTS.fullmatch(cell) else "text") if text else "number"


def escaped(text: str) -> str:
    """A text from outside as HTML that shows it literally, in content and in attributes."""
    return html.escape(plain(text))
