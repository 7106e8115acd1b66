"""Which sampler finds the best front of the digits study in a given number of trials.

Each figure is the median hypervolume of the *verified* front over seeds, divided by that of the
uniform family of the same search, verified with the same seeds: above 1, the search has found
something that one rate for all layers has not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, parser, report
from distreal_dse.catalogue import StudySource
from distreal_dse.fronts import Front, hypervolume
from distreal_dse.search import SAMPLERS, SearchSettings, search

STUDY = "digits-cnn"


def gain_over_uniform(front: Front) -> float:
    """Hypervolume of a front over that of its uniform family."""
    family = front.settings["uniform family"]
    uniform = hypervolume(
        ((one["cost"], one["convergence"]) for one in family), front.reference_cost
    )
    return front.hypervolume / uniform


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=60)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--workers", type=int, default=1)
    given = arguments.parse_args()
    gains: dict[str, list[float]] = {sampler: [] for sampler in SAMPLERS}
    for seed in range(given.seeds):
        for sampler, found in gains.items():
            settings = SearchSettings(
                StudySource(STUDY),
                trials=given.trials,
                sampler=sampler,
                seed=seed,
                workers=given.workers,
            )
            with tempfile.TemporaryDirectory() as folder:
                front = search(settings, f"sqlite:///{Path(folder) / 'search.db'}")
            found.append(gain_over_uniform(front))
            print(f"seed {seed}, {sampler}: {found[-1]:.3f}", file=sys.stderr)
    report(
        [
            Figure(
                f"hypervolume over uniform, {sampler}",
                median(found),
                "×",
                1.0,
                "higher",
                {
                    "study": STUDY,
                    "trials": given.trials,
                    "seeds": given.seeds,
                    "min": round(min(found), 3),
                    "max": round(max(found), 3),
                },
            )
            for sampler, found in gains.items()
        ],
        given.json,
    )


if __name__ == "__main__":
    main()
