"""What pictures cost: the report, saved figures, the page of a study in a browser.

The study and the comparison are made up, of the size and with the attributes that real ones have.
The page is loaded by headless Chromium from `distreal-dse dashboard`, from the start of the browser
until the page has asked for nothing more and our figures are drawn; without Chromium that is left
out. Optuna-dashboard works out the importance of parameters on the first request, which takes
longer than all else; so the second load is what a user sees of a dashboard that is running.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.figures import Figure, parser, report
from benchmarks.made_up import write_search
from dashboards.findings import TrialPoint
from dashboards.publishing import open_storage, publish
from dashboards.report import write_report
from dashboards.serving import dashboard_server
from distreal_dse.fronts import FrontGroup, open_database
from distreal_dse.search import tried_vectors
from fl.results import DeviceRound, round_result
from fl.store.runs import Run

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)
GROUPS = 20
CLASSES = ("strong", "medium", "weak")


def comparison(rounds: int, seeds: int = 3, cohort: int = 10) -> list[Run]:
    """Runs of three strategies, evaluated in each third round."""
    random = np.random.default_rng(0)
    return [
        _run(number, strategy, seed, rounds, cohort, random)
        for number, (strategy, seed) in enumerate(
            (strategy, seed)
            for strategy in ("distreal", "small", "fedavg-drop")
            for seed in range(seeds)
        )
    ]


def _run(
    number: int, strategy: str, seed: int, rounds: int, cohort: int, random: np.random.Generator
) -> Run:
    results = []
    for index in range(rounds):
        devices = tuple(
            DeviceRound(
                device, CLASSES[device % 3], "missed" if random.random() < 0.1 else "accepted",
                1.0, 1e9, 12, float(random.uniform(0.1, 0.9)), 0, 400_000, 400_000,
            )
            for device in range(cohort)
        )  # fmt: skip
        result = round_result(index, float(index), devices)
        accuracy = 0.9 * index / rounds + 0.05 * float(random.random())
        values = {name: getattr(result, name) for name in result.__dataclass_fields__}
        if index % 3 == 0:
            values |= {"accuracy": accuracy, "loss": 1.0}
        results.append(type(result)(**values))
    return Run(
        id=number, study="made", strategy=strategy, front_label="made@1", front_hash="abc",
        model_fingerprint="0123456789abcdef", seed=seed, settings={"rounds": rounds},
        created_at="2026-01-31T12:00:00+00:00", finished=True, comparison="made",
        rounds=tuple(results),
    )  # fmt: skip


def page_seconds(url: str, profile: Path) -> tuple[float, float]:
    """Seconds in which headless Chromium shows the page of study 1, its own start included.

    First from a dashboard that has just been started and draws all figures meanwhile, then again.
    """
    with dashboard_server(url, port=0) as (server, address):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        first, again = (_load(f"{address}/studies/1", profile) for _ in range(2))
        server.shutdown()
        thread.join()
    return first, again


def _load(address: str, profile: Path) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={profile}",
            "--virtual-time-budget=5000", "--dump-dom", address,
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    if "verified front" not in done.stdout:
        raise RuntimeError("the page was given out before its figures were drawn")
    return seconds


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--trials", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=300)
    arguments.add_argument("--repetitions", type=int, default=3)
    given = arguments.parse_args()
    kinds = ("report", "first", "again", "first page", "page")
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    runs = comparison(given.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for repetition in range(given.repetitions):
            url = f"sqlite:///{folder / f'{repetition}.db'}"
            groups = [FrontGroup(f"layer{i}.conv", 16 << (3 * i // GROUPS)) for i in range(GROUPS)]
            front = write_search(url, "made", given.trials, groups)
            assert front is not None
            for kind in ("first", "again"):
                engine, storage = open_database(url), open_storage(url)
                begun = time.perf_counter()
                publish(storage, engine, "made")
                times[kind].append(time.perf_counter() - begun)
                engine.dispose()
                storage.engine.dispose()
            begun = time.perf_counter()
            trials = [TrialPoint(**asdict(one)) for one in tried_vectors(url, front)]
            write_report(folder / "report.html", [(front, trials)], runs)
            times["report"].append(time.perf_counter() - begun)
            if CHROMIUM:
                first, again = page_seconds(url, folder / "profile")
                times["first page"].append(first)
                times["page"].append(again)
        size = (folder / "report.html").stat().st_size / 1e6
    study = {"trials": given.trials, "groups": GROUPS, "points": len(front.points)}
    settings = {**study, "repetitions": given.repetitions}
    compared = {**settings, "strategies": 3, "seeds": 3, "rounds": given.rounds}
    figures = [
        Figure("report, building", median(times["report"]), "s", 5, "lower", compared),
        Figure("report, size", size, "MB", 6, "lower", compared),
        Figure("saving figures and notes", median(times["first"]), "s", 3, "lower", settings),
        Figure("saving them again", median(times["again"]), "s", None, "lower", settings),
    ]
    if CHROMIUM:
        first, page = median(times["first page"]), median(times["page"])
        figures += [
            Figure("page of a study", page, "s", 5, "lower", settings),
            Figure("page of a study, as the dashboard starts", first, "s", None, "lower", settings),
        ]
    report(figures, given.json)


if __name__ == "__main__":
    main()
