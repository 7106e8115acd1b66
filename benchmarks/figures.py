"""What a benchmark reports, as a table for people or as JSON for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured figure; ``goal`` is what it should reach, ``better`` in which direction."""

    name: str
    value: float
    unit: str
    goal: float | None
    better: Literal["lower", "higher"]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with ``--json``."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def report(figures: Sequence[Figure], as_json: bool) -> None:
    """Print figures to standard output."""
    if as_json:
        print(json.dumps({"figures": [asdict(figure) for figure in figures]}, indent=2))
        return
    table = Table("figure", "value", "goal", "reached", "settings")
    for figure in figures:
        sign = "≤" if figure.better == "lower" else "≥"
        table.add_row(
            figure.name,
            f"{figure.value:.4g} {figure.unit}",
            "" if figure.goal is None else f"{sign} {figure.goal:g}",
            {None: "", True: "yes", False: "no"}[figure.reached],
            ", ".join(f"{name}={value}" for name, value in figure.settings.items()),
        )
    Console(width=120).print(table)
