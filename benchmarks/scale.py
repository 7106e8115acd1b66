"""What more hosts bring to one search.

**Hosts**: drivers of `digits-cnn` with one worker each join a search, as hosts do that share a
database. Short runs per minute are counted from when all of them have begun vectors on. One driver
and two take turns. Beside that, short runs per second of processor time of the drivers: what
joining costs where a machine is busy with something else.

**Repeats**: four drivers search; vectors that more than one trial has.

Drivers that are being measured are killed in the end, which a search outlasts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from statistics import median

import psutil
from sqlalchemy import Engine, text

from benchmarks.figures import Figure, parser, report
from distreal_dse.fronts import open_database
from distreal_dse.search import close_trials, open_trials

STUDY = "digits-cnn"
WHOLE = "replicate = -1"


@dataclass(frozen=True)
class Measured:
    """What drivers did: short runs per minute, and per second of their processor time."""

    per_minute: float
    per_cpu_second: float


def measured(url: str, drivers: int, seconds: float) -> Measured:
    """Let drivers work on a search of its own, and count for a while."""
    name = f"scale-{uuid.uuid4().hex[:8]}"
    processes = [begin(url, name) for _ in range(drivers)]
    engine = open_database(url)
    try:
        while count(engine, name, f"DISTINCT driver) FROM search_claims WHERE {WHOLE}") < drivers:
            check(processes)
            time.sleep(0.2)
        start, before, used = time.monotonic(), runs(engine, name), cpu_seconds(processes)
        time.sleep(seconds)
        done, spent = runs(engine, name) - before, cpu_seconds(processes) - used
        passed = time.monotonic() - start
        check(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        engine.dispose()
    return Measured(60 * done / passed, done / spent)


def repeated(url: str, drivers: int, trials: int) -> tuple[int, int]:
    """Let drivers finish a search; trials, and those of a vector that another trial has."""
    import optuna

    name = f"scale-{uuid.uuid4().hex[:8]}"
    processes = [begin(url, name, trials) for _ in range(drivers)]
    for process in processes:
        process.wait()
        if process.returncode:
            raise RuntimeError(f"a driver ended with {process.returncode}")
    storage = open_trials(url)
    try:
        found = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
    finally:
        close_trials(storage)
    vectors = Counter(tuple(one.user_attrs["kept channels"].values()) for one in found)
    return len(found), len(found) - len(vectors)


def begin(url: str, name: str, trials: int = 10_000) -> subprocess.Popen[bytes]:
    """Start a driver."""
    command = [
        sys.executable, "-m", "distreal_dse", "optimize", STUDY, "--fleet", "none",
        "--join", "--no-pilot",
        "--name", name, "--trials", str(trials), "--storage", url,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def check(processes: list[subprocess.Popen[bytes]]) -> None:
    """Raise if a driver has ended."""
    if any(process.poll() is not None for process in processes):
        raise RuntimeError("a driver has ended early")


def cpu_seconds(processes: list[subprocess.Popen[bytes]]) -> float:
    """Processor time of the drivers so far."""
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def runs(engine: Engine, name: str) -> int:
    """Short runs of a search that are done."""
    return count(engine, name, "*) FROM verifications WHERE TRUE")


def count(engine: Engine, name: str, what: str) -> int:
    """Count what belongs to a search."""
    with engine.connect() as connection:
        query = text(f"SELECT count({what} AND search LIKE :name")
        return int(connection.execute(query, {"name": f"{name}/%"}).scalar_one())


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--storage", help="URL of a database; default: an SQLite file")
    arguments.add_argument("--seconds", type=float, default=60, help="of each measurement")
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--trials", type=int, default=60, help="of the four drivers")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.storage or f"sqlite:///{folder}/scale.db"
        turns = [
            (measured(url, 1, given.seconds), measured(url, 2, given.seconds))
            for _ in range(given.turns)
        ]
        trials, repeats = repeated(url, 4, given.trials)
    settings = {
        "study": STUDY, "workers": 1, "turns": given.turns, "seconds": given.seconds,
        "database": url.partition(":")[0], "load": round(psutil.getloadavg()[0], 1),
        "cores": len(psutil.Process().cpu_affinity()),
    }  # fmt: skip
    ratio = median(two.per_minute / one.per_minute for one, two in turns)
    cpu = median(two.per_cpu_second / one.per_cpu_second for one, two in turns)
    one = median(one.per_minute for one, _ in turns)
    four = {**settings, "drivers": 4, "trials": trials}
    figures = [
        Figure("short runs per minute, two hosts over one", ratio, "×", 1.8, "higher", settings),
        Figure("short runs per minute, one host", one, "/min", None, "higher", settings),
        Figure("short runs per CPU second, two hosts over one", cpu, "×", None, "higher", settings),
        Figure("vectors repeated by four drivers", repeats, "vectors", 0, "lower", four),
    ]
    report(figures, given.json)


if __name__ == "__main__":
    main()
