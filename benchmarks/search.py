"""What a search costs beside training, and what workers bring, on the digits study.

Overhead: wall time from the start of the first trial to the end of the last one, less the time
inside evaluations, as a share of that wall time. Workers: trials per minute with two workers over
those with one, both from the first finished trial to the last (steady state) and for the whole
search with loading, warm-up and the start of the processes; the two kinds of search take turns, and
each repetition gives one ratio. ``distreal-dse --help``: wall time of the whole process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import optuna

from benchmarks.figures import Figure, parser, report
from distreal_dse.catalogue import StudySource
from distreal_dse.search import SearchProgress, SearchSettings, search

STUDY = "digits-cnn"


class TrialsDone(Exception):
    """Ends a search before its verification."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one search.

    ``whole`` includes loading and warm-up, ``trials`` begins with the first trial, ``steady`` with
    its end; ``evaluating`` are those inside evaluations.
    """

    whole: float
    trials: float
    steady: float
    evaluating: float


def timed_search(trials: int, workers: int, seed: int) -> Timing:
    """Run a search in a fresh database and time its trials; verification is left out."""
    finished: list[float] = []

    def listen(progress: SearchProgress) -> None:
        if progress.stage == "search":
            finished.append(time.perf_counter())
        elif progress.stage == "verification":
            raise TrialsDone

    settings = SearchSettings(StudySource(STUDY), trials=trials, workers=workers, seed=seed)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder) / 'search.db'}"
        with suppress(TrialsDone):
            search(settings, storage, listen)
        study = optuna.load_study(study_name=STUDY, storage=storage)
        evaluating = sum(trial.user_attrs["seconds"] for trial in study.trials)
    return Timing(
        finished[-1] - started, finished[-1] - finished[0], finished[-1] - finished[1], evaluating
    )


def help_seconds() -> float:
    """Wall time of ``distreal-dse --help``."""
    start = time.perf_counter()
    command = Path(sys.executable).with_name("distreal-dse")
    subprocess.run([command, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--repetitions", type=int, default=3)
    given = arguments.parse_args()
    overheads, steady, whole = [], [], []
    for repetition in range(given.repetitions):
        one = timed_search(given.trials, 1, repetition)
        two = timed_search(given.trials, 2, repetition)
        overheads.append((one.trials - one.evaluating) / one.trials)
        steady.append(one.steady / two.steady)
        whole.append(one.whole / two.whole)
    helps = [help_seconds() for _ in range(7)]
    settings = {"study": STUDY, "trials": given.trials, "repetitions": given.repetitions}

    def spread(values: list[float]) -> dict[str, object]:
        return {**settings, "min": round(min(values), 4), "max": round(max(values), 4)}

    report(
        [
            Figure(
                "search overhead", median(overheads), "of wall time", 0.05, "lower",
                spread(overheads),
            ),
            Figure(
                "trials per minute, 2 workers over 1, steady", median(steady), "×", 1.7, "higher",
                spread(steady),
            ),
            Figure(
                "trials per minute, 2 workers over 1, whole search", median(whole), "×", None,
                "higher", spread(whole),
            ),
            Figure(
                "distreal-dse --help", median(helps), "s", 0.5, "lower",
                {"runs": len(helps), "min": round(min(helps), 3), "max": round(max(helps), 3)},
            ),
        ],
        given.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
