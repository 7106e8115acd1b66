"""Rounds per minute of the engine and of Flower's simulation, on the same workload.

1,000 users with 50 CIFAR-10 images each, 50 of them per round, one epoch of mini-batches of 10, SGD
0.1, the CNN of the CIFAR-10 benchmark of pfl-research (two convolutions, two linear layers, 1.6 M
parameters), plain averages. Two worker processes each. The two take turns; the first round of each
turn, which starts processes and loads data there, does not count, and there are no evaluations.
Beside them, in one process and nothing else, the client steps of a round in a bare PyTorch loop.

Needs ``pip install 'flwr[simulation]>=1.28,<2'`` beside the package.

References
----------
Granqvist et al.: pfl-research: simulation framework for accelerating research in private federated
learning, NeurIPS 2024 (the workload).
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import _cifar_users as workload
from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle
from fl.clients import Processes

WORKERS = 2


def engine_seconds(rounds: int) -> list[float]:
    """Wall seconds of each round of the engine but the first."""
    clients = Processes(WORKERS, partial(workload.local_training, rounds))
    seconds = []
    try:
        results = workload.engine(rounds).rounds(clients)
        next(results)  # round 0
        for _ in range(rounds - 1):
            start = time.perf_counter()
            next(results)
            seconds.append(time.perf_counter() - start)
    finally:
        clients.close()
    return seconds[1:]


def bare_seconds(rounds: int) -> list[float]:
    """Wall seconds of the client steps of each round in plain PyTorch, but the first."""
    images, module = workload.load().train, workload.model()
    assert isinstance(images, workload.Images)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for user in range(workload.COHORT):
            module.load_state_dict(state)
            first = user * workload.IMAGES
            workload.train_user(module, images, range(first, first + workload.IMAGES))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="CIFAR-10 as class folders")
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--rounds", type=int, default=6, help="of each turn")
    given = arguments.parse_args()
    from benchmarks._flower_app import round_seconds  # only here, as it needs Flower

    machine = settle()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        workload.unpack(given.data, Path(folder))
        os.environ[workload.FOLDER] = folder
        # Ray's processes import the apps by name.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        for _ in range(given.turns):
            measures = (
                lambda rounds: round_seconds(rounds, WORKERS), engine_seconds, bare_seconds,
            )  # fmt: skip
            found.append([median(measure(given.rounds)) for measure in measures])
    flower, engine, bare = (median(column) for column in zip(*found, strict=True))
    ratio = median(turn[0] / turn[1] for turn in found)
    settings = {
        "users": workload.USERS, "cohort": workload.COHORT, "workers": WORKERS,
        "turns": given.turns, "rounds": given.rounds, **machine,
    }  # fmt: skip
    report(
        [
            Figure("rounds per minute, engine over Flower", ratio, "×", 5, "higher", settings),
            Figure("rounds per minute, engine", 60 / engine, "/min", None, "higher", settings),
            Figure("rounds per minute, Flower", 60 / flower, "/min", None, "higher", settings),
            Figure("engine over half of the bare loop", 2 * engine / bare, "×", None, "lower",
                   settings),
            Figure("Flower over half of the bare loop", 2 * flower / bare, "×", None, "lower",
                   settings),
        ],
        given.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
