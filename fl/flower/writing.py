"""Writing a project for Flower: an app, certificates, and how to start them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from string import Template

from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from distreal_dse.errors import InputError
from distreal_dse.fronts import export_front, find_front, has_secret
from distreal_dse.study.catalogue import StudySource
from distreal_dse.support.files import write_whole
from distreal_dse.support.specs import slug
from fl.store.specs import RunSpec
from fl.world.fleet import make_fleet

TEMPLATES = Path(__file__).with_name("project")
PACKAGE = "distreal_app"


@dataclass(frozen=True)
class Project:
    """What a project is for.

    Parameters
    ----------
    study
        Name of a shipped study, or the path of a file, which is copied.
    front
        Label of a front, or an exported file; it is copied, too. None for none.
    strategy, rounds, devices, cohort
        As in `RunSpec`.
    fleet
        As `make_fleet` takes it.
    """

    study: str
    front: str | None
    strategy: str
    rounds: int
    devices: int
    cohort: int
    fleet: str


def write_project(folder: Path, project: Project, engine: Engine) -> None:
    """Write a project into a folder that is empty or does not exist.

    Parameters
    ----------
    folder
        Of the project.
    project
        What it is for.
    engine
        The opened database, in which the front may lie and runs will.

    Raises
    ------
    InputError
        If the folder holds something, or study, front, strategy or fleet can't be used.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder}: expected a folder that is empty or does not exist, found one that holds "
            "something; name another"
        )
    source = StudySource(project.study)
    study = source.load()
    front = find_front(engine, project.front) if project.front else None
    fleet = make_fleet(project.fleet)
    RunSpec(
        study=project.study, front=project.front, strategy=project.strategy,
        rounds=project.rounds, devices=project.devices, cohort=project.cohort,
        classes=fleet.classes, availability=fleet.availability, pace=fleet.pace,
    ).check()  # fmt: skip
    home = folder.absolute()
    package = home / PACKAGE
    package.mkdir(parents=True)
    for name in ("server_app.py", "client_app.py"):
        shutil.copyfile(TEMPLATES / name, package / name)
    write_whole(package / "__init__.py", '"""The apps of this project."""\n', "the project")
    shutil.copyfile(TEMPLATES / "certificates.py", home / "certificates.py")
    if source.is_file:
        shutil.copyfile(project.study, package / "study.py")
    if front is not None:
        export_front(front, home / "front.json")
    own_front = str(home / "front.json") if front else ""
    # Flower refuses patterns that nothing fits.
    excluded = ["/flower/**", "/certificates.py", *(["/front.json"] if front else [])]
    values = {
        "excluded": ", ".join(map(_text, excluded)),
        "name": slug(folder.name) or "federated",
        "study": study.name,
        "study_key": _text("study.py" if source.is_file else project.study),
        "front": _text(own_front),
        "node_front": f' front="{own_front}"' if front else "",
        "strategy": _text(project.strategy),
        "fleet": _text(project.fleet),
        "rounds": str(project.rounds),
        "devices": str(project.devices),
        "cohort": str(project.cohort),
        "storage": _text(_absolute(engine)),
        "root_certificates": _text(str(home / "certificates" / "ca.crt")),
    }
    (home / "flower").mkdir()
    for template, place in (
        ("pyproject.toml.txt", "pyproject.toml"),
        ("config.toml.txt", "flower/config.toml"),
        ("README.md.txt", "README.md"),
    ):
        text = Template((TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)
        write_whole(home / place, text, "the project")


def _text(value: str) -> str:
    """Write text as TOML does, which is as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _absolute(engine: Engine) -> str:
    """Return the URL of a database that holds from any folder.

    Nothing where it holds a secret, as devices get the configuration of the app, too.
    """
    url = make_url(engine.url)
    if has_secret(url.render_as_string(hide_password=False)):
        return ""
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        url = url.set(database=str(Path(url.database).absolute()))
    return url.render_as_string()
