"""What the atlas is made of: data, fleets, splits, changes of resources, strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distreal_dse.errors import InputError
from distreal_dse.study.catalogue import StudySource
from fl.store.specs import RunSpec
from fl.world.fleet import FLEETS, Fleet, make_fleet


@dataclass(frozen=True)
class Training:
    """What is trained, and how long: until its accuracy hardly rises any more.

    Parameters
    ----------
    study, options
        As `StudySource` takes them; ``data`` is added to the options where ``images`` says so.
    devices, cohort, rounds, evaluate_every
        As in `RunSpec`.
    images
        Whether the study needs a folder of images.
    """

    study: str
    options: tuple[tuple[str, str], ...]
    devices: int
    cohort: int
    rounds: int
    evaluate_every: int
    images: bool = False

    def source(self, folder: Path | None) -> StudySource:
        """Return the study.

        Raises
        ------
        InputError
            If it needs a folder of images and there is none.
        """
        if not self.images:
            return StudySource(self.study, self.options)
        if folder is None:
            raise InputError(f"cells of {self.study}: expected a folder of images in --data")
        return StudySource(self.study, (*self.options, ("data", str(folder))))


TRAININGS: Mapping[str, Training] = {
    "digits": Training("digits-cnn", (), 30, 10, 120, 5),
    "digits-plain": Training("digits-plain", (), 30, 10, 120, 5),
    "cifar10": Training(
        "cifar10-cnn", (("subset", "20000"), ("size", "16")), 100, 20, 150, 10, images=True
    ),
}

# Classes of devices: those of `FLEETS`, FedEcover's (widths 1, ¾, ½, ¼ and a tenth, as shares of
# the MACs), and two speeds with a share of strong devices that is swept.
CLASSES: Mapping[str, str] = {
    **FLEETS,
    "fedecover": "a=0.05@1,b=0.1@0.57,c=0.15@0.26,d=0.2@0.07,e=0.5@0.013",
    "strong05": "strong=0.05@1,weak=0.95@1/16",
    "strong15": "strong=0.15@1,weak=0.85@1/16",
    "strong33": "strong=1/3@1,weak=2/3@1/16",
}
SPLITS: Mapping[str, str] = {
    "iid": "iid",
    "dirichlet": "dirichlet:alpha=3",  # 0.3 for each of ten classes, as most codes count
    "by-class": "by-class",
}
# What devices have free. Its mean is 0.625, which the pace makes up for.
CHANGES: Mapping[str, str] = {"constant": "", "changing": ";markov:stay=0.5;pace=1.6"}

SCHEDULE = "cosine"
STRATEGIES = (
    "small",
    "heterofl",
    "fjord",
    "fedrolex",
    "federated-dropout:rates=own",
    "distreal-uniform",
    "distreal",
    "nested",
)
OURS = "nested"
"""What the atlas is about: held against the best of all others."""


@dataclass(frozen=True)
class Cell:
    """One comparison of the atlas."""

    data: str
    fleet: str
    split: str
    change: str

    @property
    def name(self) -> str:
        """Of its comparison in the database."""
        return f"atlas {self.data} {self.fleet} {self.split} {self.change}"

    @property
    def told(self) -> str:
        """For people."""
        return f"{self.data}, {self.fleet}, {self.split}, {self.change}"

    @property
    def front(self) -> str:
        """Name of the front that is fitted to its fleet."""
        return f"atlas-{self.data}-{self.fleet}-{self.change}"

    @property
    def world(self) -> Fleet:
        """Its devices and what they have free."""
        return make_fleet(CLASSES[self.fleet] + CHANGES[self.change])

    def specs(
        self, source: StudySource, front: str | None, seeds: int, strategies: Sequence[str]
    ) -> list[RunSpec]:
        """Return the runs of some `STRATEGIES`, at rates that are not chosen yet."""
        training, world = TRAININGS[self.data], self.world
        shared: dict[str, Any] = {
            "study": source.spec,
            "options": source.options,
            "front": front,
            "rounds": training.rounds,
            "devices": training.devices,
            "cohort": training.cohort,
            "evaluate_every": training.evaluate_every,
            "classes": world.classes,
            "availability": world.availability,
            "pace": world.pace,
            "split": SPLITS[self.split],
            "schedule": SCHEDULE,
        }
        return [
            RunSpec(**shared, strategy=strategy, seed=seed)
            for strategy in strategies
            if front is not None or strategy != "distreal"
            for seed in range(seeds)
        ]


def all_cells() -> list[Cell]:
    """Return the cells, those that matter first."""
    fleets = ("extreme", "thirds", "wide", "strong05", "strong15", "strong33", "fedecover")
    return [
        Cell(data, fleet, split, change)
        for data in TRAININGS
        for change in CHANGES
        for fleet in fleets
        for split in SPLITS
    ]
