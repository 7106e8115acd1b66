"""No command says the password of the database, wherever in the URL it stands."""

from __future__ import annotations

import shlex
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.serving import dashboard_server
from distreal_dse.cli import main
from distreal_dse.support.interrupts import Interrupts

SECRET = "geh%2Beim!"
WORD = "geh+eim!"  # what the URL says
Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Runs a command in this process; gives its exit code and all it said."""
    for name in ("DISTREAL_STORAGE", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("distreal_dse.cli._app.interrupts", Interrupts())
        monkeypatch.setattr("sys.argv", ["distreal-dse", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    # A command that has ended ignores them, and tests that come later in this process need them.
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def test_no_command_says_a_password(
    say: Say, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLite looks past what it does not know in the URI of a file.
    url = f"sqlite:///file:{tmp_path}/own.db?uri=true&password={SECRET}"
    for fails, arguments in (
        (0, ("optimize", study, "--fleet", "none", "--trials", 9)),
        (0, ("optimize", study, "--fleet", "none", "--trials", 9, "--json")),
        (0, ("front", "list")),
        (0, ("front", "show", "tiny")),
        (0, ("lookup", "tiny", "--budget", "90%")),
        (2, ("lookup", "none", "--budget", "90%")),
        (2, ("fl", "resume", 7)),
        (0, ("doctor",)),
        (0, ("status",)),
        (0, ("doctor", "--json")),
        (0, ("report", "--out", tmp_path / "report.html", "--json", "-")),
    ):
        code, text = say(*arguments, "--storage", url)
        assert (code, "geh" in text) == (fails, False), text
        if arguments[0] == "doctor":
            assert "password=***" in text
        if arguments[0] == "optimize" and "--json" not in arguments:
            (line,) = (one for one in text.splitlines() if one.startswith("Train with it: "))
            command, _, reason = line.removeprefix("Train with it: ").partition("  # ")
            assert "DISTREAL_STORAGE" in reason and "a secret" in reason
            assert '--storage "$DISTREAL_STORAGE"' in command
            # As a shell reads it, where the variable is set as asked.
            words = [word.replace("$DISTREAL_STORAGE", url) for word in shlex.split(command)]
            code, text = say(*words[1:], "--rounds", 1, "--devices", 4, "--cohort", 2)
            assert code == 0 and "geh" not in text
    assert "geh" not in (tmp_path / "report.html").read_text()
    with dashboard_server(url, port=0, artifacts=tmp_path) as (_, address):
        assert "geh" not in address


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tester:{secret}@127.0.0.1:{port}/db",
        "postgresql://tester@127.0.0.1:{port}/db?password={secret}",
        "postgresql://tester@127.0.0.1:{port}/db?sslpassword={secret}&sslmode=prefer",
        "postgresql://tester@127.0.0.1:{port}/db?passwd={secret}",  # which libpq refuses
        "postgresql+nodriver://tester@127.0.0.1:{port}/db?password={secret}",
        "mysql://tester@127.0.0.1:{port}/db?password={secret}",
        "password={secret} host=127.0.0.1 port={port}",
        "host=127.0.0.1 user='postgresql:x' password={secret}",
        "sqlite:////nowhere/at/all.db?password={secret}",
        "{secret}",
    ],
)
def test_no_error_says_a_password(say: Say, url: str) -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as probe:  # a port that was free a moment ago
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code, text = say("front", "list", "--storage", url.format(secret=SECRET, port=port))
    assert code in (1, 2) and "storage" in text
    assert "geh" not in text and SECRET not in text and WORD not in text


def test_storages_are_looked_for_in_order(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_in(*arguments: Any) -> str:
        code, text = say("front", "list", *arguments)
        assert code == 1
        return text

    monkeypatch.chdir(tmp_path)
    assert "distreal.db" in looked_in()
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///of-optuna.db")
    assert "of-optuna.db" in looked_in()
    monkeypatch.setenv("DISTREAL_STORAGE", "sqlite:///ours.db")
    assert "ours.db" in looked_in()
    assert "given.db" in looked_in("--storage", "sqlite:///given.db")
