"""What a round takes on Flower, and what travels, beside the engine.

**Deployment**: a SuperLink and SuperNodes as processes on loopback, over TLS with keys of nodes,
carry out a run of `digits-cnn` as `distreal-dse fl flower-init` writes it, in virtual time, so that
the engine has the same rounds. Figures are wall seconds per round but the first, what the devices'
apps take to start (Flower starts them for each message), and bytes of values and weights over those
that the plans of the cohort need.

**Simulation**, with ``--data``: rounds per minute of the engine and of Flower's simulation with its
own FedAvg. 1,000 users with 50 CIFAR-10 images each, 50 of them per round, one epoch of
mini-batches of 10, SGD 0.1, the CNN of the CIFAR-10 benchmark of pfl-research (two convolutions,
two linear layers, 1.6 M parameters), plain averages. Two worker processes each. The two take turns;
the first round of each turn, which starts processes and loads data there, does not count, and there
are no evaluations. Beside them, in one process and nothing else, the client steps of a round in a
bare PyTorch loop.

Needs the extra ``flower``, and for the simulation ``pip install 'flwr[simulation]>=1.28,<2'``.

References
----------
Granqvist et al.: pfl-research: simulation framework for accelerating research in private federated
learning, NeurIPS 2024 (the workload).
"""

from __future__ import annotations

import os
import subprocess
import sys
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


def deployment_figures(strategy: str, nodes: int, rounds: int) -> list[Figure]:
    """Carry a run out on a SuperLink with so many SuperNodes, and by the engine."""
    from benchmarks._deployment import carried_out

    with tempfile.TemporaryDirectory() as folder:
        run, begun, ends = carried_out(Path(folder), strategy, nodes, rounds)
        seconds = []
        results = begun.rounds()
        planned = [next(results)]
        for _ in range(rounds):
            start = time.perf_counter()
            planned.append(next(results))
            seconds.append(time.perf_counter() - start)
        app = app_seconds(Path(folder) / "project", nodes)
    sent = sum(one.bytes_down + one.bytes_up for one in run.rounds)
    needed = sum(one.bytes_down + one.bytes_up for one in planned)
    settings = {"strategy": strategy, "nodes": nodes, "rounds": rounds}
    between = [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)]
    return [
        Figure("seconds per round on SuperNodes", median(between), "s", None, "lower", settings),
        Figure("start of a device's app", app, "s", None, "lower", settings),
        Figure("seconds per round, engine", median(seconds[1:]), "s", None, "lower", settings),
        Figure("bytes over what the plans need", sent / needed, "×", 1.05, "lower", settings),
    ]


def app_seconds(project: Path, nodes: int) -> float:
    """Median of the wall seconds that as many apps as there are devices take to start, at once."""
    code = (
        "import flwr.clientapp; from pathlib import Path; from fl.flower.config import *; "
        "from fl.flower.device import *; import tomllib; "
        "app = tomllib.loads(Path('pyproject.toml').read_text())['tool']['flwr']['app']; "
        "Participant(equip(read_config(app['config'], Path('distreal_app'))), "
        f"read_node({{'partition-id': 0}}, {nodes}))"
    )
    found = []
    for _ in range(3):
        start = time.perf_counter()
        apps = [subprocess.Popen([sys.executable, "-c", code], cwd=project) for _ in range(nodes)]
        for one in apps:
            if one.wait():
                raise RuntimeError("the app of a device does not start")
        found.append(time.perf_counter() - start)
    return median(found)


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, help="CIFAR-10 as class folders; simulates, too")
    arguments.add_argument("--turns", type=int, default=3, help="of the simulation")
    arguments.add_argument("--rounds", type=int, default=10, help="of the deployment")
    arguments.add_argument("--nodes", type=int, default=4, help="of the deployment")
    given = arguments.parse_args()
    figures = []
    for strategy in ("distreal-uniform", "heterofl"):
        figures += deployment_figures(strategy, given.nodes, given.rounds)
    if given.data is not None:
        figures += simulation_figures(given.data, given.turns)
    report(figures, given.json)


def simulation_figures(data: Path, turns: int, rounds: int = 6) -> list[Figure]:
    """Let the engine, Flower and a bare loop take turns of some rounds on the same workload."""
    from benchmarks._flower_app import round_seconds  # only here, as it needs Flower

    machine = settle()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        workload.unpack(data, Path(folder))
        os.environ[workload.FOLDER] = folder
        # Ray's processes import the apps by name.
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        for _ in range(turns):
            measures = (
                lambda rounds: round_seconds(rounds, WORKERS), engine_seconds, bare_seconds,
            )  # fmt: skip
            found.append([median(measure(rounds)) for measure in measures])
    flower, engine, bare = (median(column) for column in zip(*found, strict=True))
    ratio = median(turn[0] / turn[1] for turn in found)
    settings = {
        "users": workload.USERS, "cohort": workload.COHORT, "workers": WORKERS,
        "turns": turns, "rounds": rounds, **machine,
    }  # fmt: skip
    return [
        Figure("rounds per minute, engine over Flower", ratio, "×", 1.8, "higher", settings),
        Figure("rounds per minute, engine", 60 / engine, "/min", None, "higher", settings),
        Figure("rounds per minute, Flower", 60 / flower, "/min", None, "higher", settings),
        Figure("engine over half of the bare loop", 2 * engine / bare, "×", None, "lower",
               settings),
        Figure("Flower over half of the bare loop", 2 * flower / bare, "×", None, "lower",
               settings),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
