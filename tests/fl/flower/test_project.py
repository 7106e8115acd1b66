from __future__ import annotations

import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra flower: pip install 'distreal-dse[flower]'")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.serialization import load_ssh_private_key  # noqa: E402

from command_line import run  # noqa: E402
from distreal_dse.errors import InputError  # noqa: E402
from distreal_dse.fronts import load_front  # noqa: E402
from fl.flower.config import KEYS, read_config  # noqa: E402
from fl.flower.writing import Project, write_project  # noqa: E402
from flower_runs import Ground  # noqa: E402


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground.make(tmp_path)
    yield made
    made.database.dispose()


def project_of(ground: Ground, front: str | None = "tiny", strategy: str = "distreal") -> Project:
    return Project(str(ground.study), front, strategy, 3, 4, 2, "wide")


def test_the_command_writes_a_project_whose_configuration_is_the_run(ground: Ground) -> None:
    folder = ground.folder / "project"
    ended = run(
        "fl", "flower-init", folder, "--study", ground.study, "--front", "tiny", "--rounds", "3",
        "--devices", "4", "--cohort", "2", "--fleet", "wide",
        "--storage", ground.database.url.render_as_string(),
    )  # fmt: skip
    assert ended.code == 0, ended.stderr
    written = tomllib.loads((folder / "pyproject.toml").read_text())
    app = written["tool"]["flwr"]["app"]
    assert set(app["config"]) == set(KEYS) - {"partition-id", "num-partitions"}
    found = read_config(app["config"], folder / "distreal_app")
    spec = found.spec
    assert (spec.strategy, spec.rounds, spec.devices, spec.cohort) == ("distreal", 3, 4, 2)
    assert spec.study == str(folder / "distreal_app" / "study.py")
    assert Path(spec.study).read_text() == ground.study.read_text()
    assert found.storage == ground.database.url.render_as_string()
    # The run begins as it is written, with the front that was exported.
    front = spec.begin(ground.database).front
    assert front is not None
    assert front.content_hash == load_front(ground.database, "tiny").content_hash
    for module in ("server_app", "client_app"):
        done = subprocess.run(
            [sys.executable, "-c", f"from distreal_app.{module} import app; print(type(app))"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ("ServerApp" if module == "server_app" else "ClientApp") in done.stdout


def test_the_app_is_built_without_the_front_and_without_keys(ground: Ground) -> None:
    folder = ground.folder / "project"
    write_project(folder, project_of(ground), ground.database)
    from flwr.cli.build import build_fab_from_disk

    certificates(folder)
    fab = build_fab_from_disk(folder)
    if isinstance(fab, tuple):  # newer versions tell what they found, too
        fab = fab[0]
    import io
    import zipfile

    names = zipfile.ZipFile(io.BytesIO(fab)).namelist()
    assert "distreal_app/study.py" in names
    assert not [n for n in names if "front.json" in n or "certificates" in n or ".key" in n]


def certificates(folder: Path, *arguments: str) -> Path:
    subprocess.run(
        [sys.executable, "certificates.py", "--devices", "2", *arguments], cwd=folder, check=True
    )
    return folder / "certificates"


def test_certificates_are_signed_and_keys_are_for_their_owner(ground: Ground) -> None:
    folder = ground.folder / "project"
    write_project(folder, project_of(ground), ground.database)
    found = certificates(folder, "--host", "10.1.2.3", "--host", "server.example")
    root = x509.load_pem_x509_certificate((found / "ca.crt").read_bytes())
    server = x509.load_pem_x509_certificate((found / "server.pem").read_bytes())
    server.verify_directly_issued_by(root)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3"]
    assert names.get_values_for_type(x509.DNSName) == ["server.example"]
    for name in ("server.key", "device-0.key", "device-1.key"):
        assert stat.S_IMODE((found / name).stat().st_mode) == 0o600
    key = load_ssh_private_key((found / "device-0.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    before = {one.name: one.read_bytes() for one in found.iterdir()}
    certificates(folder)
    assert {one.name: one.read_bytes() for one in found.iterdir()} == before  # all is kept


@pytest.mark.parametrize("url", ["me:secret@db/runs", "me@db/runs?password=secret"])
def test_a_password_of_the_database_is_not_sent_to_devices(ground: Ground, url: str) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(f"postgresql+psycopg://{url}")
    write_project(ground.folder / "project", project_of(ground, None, "heterofl"), engine)
    written = (ground.folder / "project" / "pyproject.toml").read_text()
    assert "secret" not in written
    assert 'storage = ""' in written


def test_a_folder_that_holds_something_is_refused_and_left_alone(ground: Ground) -> None:
    before = sorted(ground.folder.iterdir())
    with pytest.raises(InputError, match="expected a folder that is empty or does not exist"):
        write_project(ground.folder, project_of(ground), ground.database)
    assert sorted(ground.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--strategy", "distreal:form=random", "expected a front to look vectors up in"),
        ("--fleet", "nonsense", "nonsense"),
    ],
)
def test_what_can_not_be_trained_is_refused_before_anything_is_written(
    ground: Ground, option: str, value: str, said: str
) -> None:
    ended = run(
        "fl", "flower-init", ground.folder / "project", "--study", ground.study, option, value,
        "--storage", ground.database.url.render_as_string(),
    )  # fmt: skip
    assert said in ended.error(2)
    assert not (ground.folder / "project").exists()
