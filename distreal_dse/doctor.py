"""What works on this machine: packages, processor, training, storage, pictures.

Everything is tried rather than looked up, and nothing is imported before its turn: what is broken
must not keep the rest from being told.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from packaging.requirements import Requirement

from distreal_dse.errors import DistrealError, described
from distreal_dse.study.shadows import HOME, PACKAGES, shadowed_packages
from distreal_dse.support.installation import LIGHT, distribution

State = Literal["works", "missing", "broken"]
"""``"missing"`` is what nothing needs that is not asked for."""


@dataclass(frozen=True)
class Finding:
    """What became of one thing that was tried.

    Parameters
    ----------
    subject
        What was tried.
    state
        Whether it works.
    found
        What there is, in a line.
    advice
        What to do where it does not work, or could be better; else empty.
    """

    subject: str
    state: State
    found: str
    advice: str = ""


def examine(storage: str) -> Iterator[Finding]:
    """Try one thing after the other; never raises.

    Parameters
    ----------
    storage
        URL of the database, which is brought up to date where it is older.
    """
    name = distribution()
    try:
        yield from packages(name)
    except metadata.PackageNotFoundError:
        advice = f"pip install '{name}', or this checkout with pip install --editable ."
        yield Finding("packages", "broken", f"{name} is not installed", advice)
    for subject, attempt in (
        ("own packages", _own_packages),
        ("processor", _processor),
        ("torchvision", _torchvision),
        ("training on cpu", lambda: _training("cpu")),
        ("training on cuda", _cuda),
        ("storage", lambda: _storage(storage)),
        ("pictures", _pictures),
    ):
        try:
            yield Finding(subject, *attempt())
        except ModuleNotFoundError as error:
            # Devices do without some packages, and without what these are for.
            state: State = "missing" if name == LIGHT else "broken"
            yield Finding(subject, state, described(error))
        except Exception as error:  # whatever a broken installation may raise
            told = str(error) if isinstance(error, DistrealError) else described(error)
            yield Finding(subject, "broken", told)


def packages(distribution: str) -> Iterator[Finding]:
    """Compare what an installed distribution requires, extras included, with what there is.

    Yields one finding for all that fits, and one for each package that does not.
    """
    fitting = []
    for text in metadata.requires(distribution) or ():
        requirement = Requirement(text)
        name, extra = requirement.name, _extra_of(requirement, distribution)
        if extra in (None, "dev", "docs"):
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            if extra:
                advice = f"pip install '{distribution}[{extra}]'"
                yield Finding(name, "missing", f"not installed; {extra} needs it", advice)
            else:
                advice = f"pip install '{name}{requirement.specifier}'"
                yield Finding(name, "broken", "not installed", advice)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting.append(f"{name} {version}")
        else:
            advice = f"pip install '{name}{requirement.specifier}'"
            yield Finding(name, "broken", f"{version}, expected {requirement.specifier}", advice)
    yield Finding("packages", "works", ", ".join(fitting))


def _extra_of(requirement: Requirement, distribution: str) -> str | None:
    """The extra that a requirement belongs to, empty where it is always needed.

    None where it is not for this machine.
    """
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return ""
    extras = metadata.metadata(distribution).get_all("Provides-Extra") or ()
    return next((extra for extra in extras if marker.evaluate({"extra": extra})), None)


def _own_packages() -> tuple[State, str, str]:
    shadows = shadowed_packages()
    if not shadows:
        return "works", f"distreal_dse, {', '.join(PACKAGES)} in {HOME}", ""
    found = ", ".join(f"{name} is {place}" for name, place in shadows.items())
    advice = "rename that, or start where neither the working folder nor $PYTHONPATH leads to it"
    return "broken", f"expected them in {HOME}; {found}", advice


def _processor() -> tuple[State, str, str]:
    import torch

    from distreal_dse.cost import device_fingerprint, device_text

    threads = torch.get_num_threads()
    advice = "set OMP_NUM_THREADS=1 for processes that train beside others" if threads > 1 else ""
    return "works", device_text(device_fingerprint("cpu", threads)), advice


def _torchvision() -> tuple[State, str, str]:
    from distreal_dse.support.compat import torchvision

    if torchvision.extension._has_ops():
        return "works", "with its compiled operators", ""
    return (
        "works",
        "without its compiled operators, which are not for this PyTorch",
        "nothing here needs them; detection models do",
    )


def _training(device: str) -> tuple[State, str, str]:
    """Train a mini-batch of a sub-network."""
    import torch
    from torch import nn

    from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, RandomMasks

    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2)
    ).to(device)
    inputs, targets = torch.randn(4, 3, 8, 8, device=device), torch.tensor([0, 1, 0, 1])
    network = DroppableNetwork(module, inputs)
    trainer = DropoutTrainer(
        network,
        torch.optim.SGD(module.parameters(), lr=0.1),
        nn.functional.cross_entropy,
        RandomMasks(),
        torch.Generator().manual_seed(0),
    )
    trainer.step(inputs, targets.to(device), (4,))
    name = f" of {torch.cuda.get_device_name()}" if device == "cuda" else ""
    return "works", f"a sub-network's mini-batch was trained{name}", ""


def _cuda() -> tuple[State, str, str]:
    import torch

    if torch.cuda.is_available():
        return _training("cuda")
    if torch.version.cuda is None:
        return "missing", "a PyTorch without CUDA", "install one with CUDA where there is a GPU"
    return "missing", "no GPU that CUDA can use", ""


def _storage(url: str) -> tuple[State, str, str]:
    from sqlalchemy import make_url

    from distreal_dse.fronts import (
        check_writable,
        list_fronts,
        normalise_url,
        open_database,
        shown_storage,
    )
    from fl.store.runs import count_runs

    parsed = make_url(normalise_url(url))
    shown, file = shown_storage(url), parsed.database
    plain = parsed.get_backend_name() == "sqlite" and file and not file.startswith("file:")
    if plain and not os.path.exists(str(file)):
        return "missing", f"{shown} is not there yet", "the first search or run makes it"
    engine = open_database(url, create=False)
    try:
        fronts = len(list_fronts(engine))
        runs = count_runs(engine)
        check_writable(engine)
    finally:
        engine.dispose()
    return "works", f"{shown}; versions of fronts: {fronts}, federated runs: {runs}", ""


def _pictures() -> tuple[State, str, str]:
    import plotly.graph_objects as go

    from dashboards.images import write_images
    from distreal_dse.errors import InputError

    with tempfile.TemporaryDirectory() as folder:
        try:
            write_images({"tried": go.Figure()}, folder, ("svg",))
        except InputError as error:
            return "missing", "reports have figures, but --svg and --png don't work", str(error)
    return "works", "figures can be written as SVG and PNG", ""
