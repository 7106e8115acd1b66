"""Peak memory of a training step: predicted, given out by PyTorch, and what a process takes.

Each vector of one rate is trained in a process of its own. What that takes is the most that the
system held in memory for it (resident), and by how much it grew when training began: Python,
PyTorch and the network's own code are there before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.figures import Figure, parser, report
from benchmarks.machine import settle

STUDIES = ("digits-cnn", "cifar10-resnet20")
RATES = (0.0, 0.25, 0.5, 0.75)
STEPS = 5
MB = 1e6
# How far the prediction may be from what PyTorch gives out, in MB: workspaces of convolutions.
GOAL = 1.5


def trained(name: str, rate: float) -> dict[str, float]:
    """Train a vector of one rate in this process; bytes that it had before, and at most."""
    from distreal_dse.cost._rehearsal import Rehearsal
    from distreal_dse.dropout import kept_counts
    from distreal_dse.study.catalogue import StudySource
    from distreal_dse.study.preparation import prepare_network

    study = StudySource(name).load()
    network, shape = prepare_network(study, 0)
    counts = kept_counts([rate] * len(network.groups), network.groups, study.granularity)
    # An optimiser's first use imports a part of PyTorch that takes more than these networks.
    study.optimizer(network.module.parameters())
    before = most_resident()
    rehearsal = Rehearsal(study, network, shape, study.batch_size)
    for _ in range(STEPS):
        rehearsal.step(counts)
    return {"before": before, "most": most_resident()}


def most_resident() -> int:
    """Bytes that this process had in memory at most so far; on Linux.

    Not ``getrusage``, which counts what the process that started this one had.
    """
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    (line,) = (one for one in text.splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def in_a_process(name: str, rate: float) -> dict[str, float]:
    """As `trained`, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory", "--train", name, str(rate)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--train", nargs=2, metavar=("STUDY", "RATE"), help="used by itself")
    given = arguments.parse_args()
    if given.train:
        torch.set_num_threads(1)  # and the C library as it is on a device, see `settle`
        print(json.dumps(trained(given.train[0], float(given.train[1]))))
        return
    settings = settle()
    figures = [one for name in STUDIES for one in of_study(name, settings)]
    report(figures, given.json)


def of_study(name: str, settings: dict[str, object]) -> list[Figure]:
    """Figures of one study."""
    from distreal_dse.cost import MemoryCost, measured_memory
    from distreal_dse.dropout import kept_counts
    from distreal_dse.study.catalogue import StudySource
    from distreal_dse.study.preparation import prepare_network

    study = StudySource(name).load()
    network, shape = prepare_network(study, 0)
    cost = MemoryCost(study, network, shape)
    figures = []
    for rate in RATES:
        counts = kept_counts([rate] * len(network.groups), network.groups, study.granularity)
        predicted = cost.peak(counts)
        measured = measured_memory(study, network, shape, counts)
        process = in_a_process(name, rate)
        where = {"rate": rate, "batch": study.batch_size, **settings}
        figures += [
            Figure(f"{name}: predicted", predicted / MB, "MB", None, "lower", where),
            Figure(f"{name}: given out", measured / MB, "MB", None, "lower", where),
            Figure(
                f"{name}: difference",
                abs(predicted - measured) / MB,
                "MB",
                GOAL,
                "lower",
                where,
            ),
            Figure(
                f"{name}: the process grows by",
                (process["most"] - process["before"]) / MB,
                "MB",
                None,
                "lower",
                where,
            ),
            Figure(f"{name}: the process", process["most"] / MB, "MB", None, "lower", where),
        ]
    return figures


if __name__ == "__main__":
    main()
