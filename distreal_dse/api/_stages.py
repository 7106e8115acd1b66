"""What people are told of a search while it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distreal_dse.support.progress import Progress, console, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from distreal_dse.search import SearchProgress

# Said when these stages of a search begin.
ANNOUNCED = {"verification": "the best again, with fresh short runs"}


def stage_listener(bar: Progress) -> Callable[[SearchProgress], None]:
    """Shows the stages of a search; what is verified, and why, is said when that begins."""
    begun: set[str] = set()

    def show(progress: SearchProgress) -> None:
        failed = f", {progress.failed} failed" if progress.failed else ""
        note = f"{progress.non_dominated} non-dominated{failed}" if progress.non_dominated else ""
        if progress.stage not in begun:
            begun.add(progress.stage)
            note = ANNOUNCED.get(progress.stage, note)
        bar.show(progress.stage, progress.done, progress.total, note)

    return show


def pilot_text(progress: SearchProgress, otherwise: str) -> str:
    """What the pilot of a search found, and what the search does about it; empty where none is.

    Parameters
    ----------
    progress
        Whose ``pilot`` may be there.
    otherwise
        How a search goes on that does not pay, such as ``"--no-pilot"``.
    """
    pilot = progress.pilot
    if pilot is None:
        return ""
    said = list(pilot.sentences())
    if not pilot.is_worth_a_search:
        said.append(
            f"The search ends here, with one rate for all layers; {otherwise} goes on all the same."
        )
    elif progress.seconds_left:
        minutes = progress.seconds_left / 60
        rest = f"{minutes:.0f} minutes" if minutes >= 1 else "a minute or less"
        said.append(f"The rest takes about {rest}.")
    return "\n".join(said)


@contextmanager
def shown_search(
    screen: Console | None = None, otherwise: str = "pilot=False"
) -> Iterator[Callable[[SearchProgress], None]]:
    """Show a search: its stages as bars or lines, and what its pilot found.

    Parameters
    ----------
    screen
        Where; None for what fits: standard error, or the cell of a notebook.
    otherwise
        As for `pilot_text`.
    """
    target = screen or console()
    with progress_bar(target) as bar:
        show = stage_listener(bar)

        def listen(progress: SearchProgress) -> None:
            if said := pilot_text(progress, otherwise):
                target.print(said, markup=False)
            else:
                show(progress)

        yield listen
