"""Which sampler finds the best front of the digits study in a given number of trials.

Each figure is the median over seeds of the hypervolume of the *verified* front, without its uniform
vectors, divided by the area under the curve through the uniform rates of the same search, which are
verified with the same seeds. Below 1, the search has found nothing that one rate for all layers
could not do.
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
    """Hypervolume of the searched points of a front over that of the curve of uniform rates."""
    searched = ((p.cost, p.convergence) for p in front.points if not p.uniform)
    uniform = front.uniform_hypervolume
    assert uniform is not None
    return hypervolume(searched, front.reference_cost) / uniform


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
