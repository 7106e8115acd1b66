from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from command_line import run
from distreal_dse.errors import InputError
from distreal_dse.fronts import read_budget
from front_examples import make_front
from tiny_study import DIVERGES_ALWAYS, write_study

EMPTY = "\nstudy = replace(study, data=lambda: Data(data().train, data().validation, []))\n"
ONE_CLASS = """
zeros = TensorDataset(torch.randn(30, 1, 6, 6), torch.zeros(30, dtype=torch.long))
study = replace(study, data=lambda: Data(zeros, zeros, zeros))
"""
UNTRACEABLE = """
class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = model()

    def forward(self, x):
        return self.layers(x) if x.sum() > 0 else self.layers(-x)


study = replace(study, model=Branching)
"""
TOO_FEW_OUTPUTS = """
def two_outputs():
    return nn.Sequential(*list(model())[:-1], nn.Linear(8, 2))


study = replace(study, model=two_outputs)
"""
OPTIONS = """
made = study


def study(width: int = 6):
    return made
"""


@pytest.fixture
def fresh(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/fresh.db"


def test_an_unknown_study_is_refused_with_the_nearest_names(fresh: str) -> None:
    line = run("optimize", "digit-cn", "--storage", fresh).error(2)
    assert "'digit-cn'" in line and "did you mean digits-cnn" in line


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("\nstudy = 1 / 0\n", ["fails to import", "ZeroDivisionError", "bad.py"]),
        ("\ndel study\n", ["no object named 'study'"]),
        ("\nstudy = 3\n", ["'study'", "is a int", "expected a Study"]),
        (EMPTY, ["test data", "is empty"]),
        (ONE_CLASS, ["one class", "at least two"]),
        (UNTRACEABLE, ["Branching", "traced"]),
        ("\nstudy = replace(study, data=lambda: None)\n", ["data", "None"]),
        ("\nstudy = replace(study, model=lambda: 3)\n", ["model", "int"]),
    ],
)
def test_a_study_file_that_can_not_be_used_is_refused(
    change: str, parts: list[str], tmp_path: Path, fresh: str
) -> None:
    bad = write_study(tmp_path, "bad", change)
    line = run("optimize", bad, "--storage", fresh).error(2)
    assert all(part in line for part in parts), line


def test_an_error_of_the_training_itself_is_told_in_one_line(tmp_path: Path, fresh: str) -> None:
    bad = write_study(tmp_path, "bad", TOO_FEW_OUTPUTS)
    ended = run("optimize", bad, "--fleet", "none", "--trials", "2", "--storage", fresh)
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]  # lines of progress come before it
    assert last.startswith("error: ") and "Target 2 is out of bounds" in last


def test_an_error_is_one_line_without_an_empty_one_before_it(study: Path, fresh: str) -> None:
    ended = run("optimize", study, "--trials", "0", "--storage", fresh)
    assert ended.stderr == "error: --trials is 0: expected 1 or more\n"


def test_the_line_of_an_import_error_is_named_for_a_relative_path_too(
    tmp_path: Path, fresh: str
) -> None:
    bad = write_study(tmp_path, "bad", "\nstudy = 1 / 0\n")
    line = run("optimize", bad.name, "--storage", fresh, cwd=tmp_path).error(2)
    number = bad.read_text().splitlines().index("study = 1 / 0") + 1
    assert f"line {number}" in line


def test_a_missing_study_file_is_refused(tmp_path: Path, fresh: str) -> None:
    assert "nowhere.py" in run("optimize", tmp_path / "nowhere.py", "--storage", fresh).error(2)


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ("depth=3", ["no option 'depth'", "width"]),
        ("width", ["--option width", "NAME=VALUE"]),
    ],
)
def test_an_option_that_does_not_fit_is_refused(
    option: str, parts: list[str], tmp_path: Path, fresh: str
) -> None:
    study = write_study(tmp_path, "options", OPTIONS)
    line = run("optimize", study, "--option", option, "--storage", fresh).error(2)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--trials", "0"], ["--trials is 0", "1 or more"]),
        (["--workers", "0"], ["--workers is 0", "1 or more"]),
        (["--device", "foo"], ["'foo'", "cpu or cuda"]),
        (["--sampler", "best"], ["'best'", "gp, nsga2, random, tpe"]),
        (["--timeout", "soon"], ["'soon'", "10m"]),
        (["--masks", "blokcs"], ["'blokcs'", "random-round"]),
        (["--masks", "blocks:size=3"], ["'size'", "blocks, core, redraw"]),
        (["--granularity", "0"], ["granularity", "1 or more"]),
        (["--memory", "64 bananas"], ["--memory is 64 bananas", "such as 64MB"]),
        (["--memory", "0"], ["--memory is 0", "1 byte or more"]),
        (["--memory", "1kB"], ["--memory is 1.0 kB", "expected at least", "batch_size"]),
        (["--memory", "1kB", "--fleet", "none"], ["--memory is 1.0 kB", "in all layers"]),
        (["--granularity", "8"], ["granularity of study tiny is 8", "nothing to drop"]),
    ],
)
def test_a_setting_out_of_range_is_refused(
    arguments: list[str], parts: list[str], study: Path, fresh: str
) -> None:
    line = run("optimize", study, *arguments, "--storage", fresh).error(2)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize("arguments", [["--trials", "many"], ["--nonsense"], []])
def test_wrong_usage_exits_with_2_and_shows_no_traceback(arguments: list[str]) -> None:
    ended = run("optimize", *arguments)
    assert ended.code == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_an_unreachable_database_fails_without_showing_its_password(study: Path) -> None:
    with socket.socket() as probe:  # a port that was free a moment ago
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"postgresql://tester:geheim@127.0.0.1:{port}/fronts"
    line = run("front", "list", "--storage", url).error(1)
    assert str(port) in line and "geheim" not in line
    assert "geheim" not in run("optimize", study, "--storage", url).error(1)


def test_a_file_that_is_no_database_fails_and_stays_as_it_is(study: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are notes, " * 100)
    line = run("optimize", study, "--storage", f"sqlite:///{file}").error(1)
    assert "notes.txt" in line and "SQLite" in line
    assert file.read_text() == "these are notes, " * 100


def test_a_storage_that_is_no_url_is_refused() -> None:
    assert "sqlite:///" in run("front", "list", "--storage", "somewhere.db").error(2)


def test_a_read_only_database_fails_a_search_but_shows_its_fronts(
    study: Path, storage: str
) -> None:
    file = storage.removeprefix("sqlite:///")
    url = f"sqlite:///file:{file}?mode=ro&uri=true"
    line = run("optimize", study, "--fleet", "none", "--trials", "21", "--storage", url).error(1)
    assert "writable" in line
    assert run("front", "list", "--json", "--storage", url).json[0]["name"] == "tiny"


def test_a_front_of_another_model_is_refused(storage: str) -> None:
    line = run("fl", "run", "digits-cnn", "--front", "tiny", "--storage", storage).error(2)
    assert "tiny@1" in line and "another model" in line and "digits-cnn" in line


def test_a_changed_exchange_file_is_refused(study: Path, storage: str, tmp_path: Path) -> None:
    file = tmp_path / "front.json"
    run("front", "export", "tiny", file, "--storage", storage)
    content = json.loads(file.read_text())
    content["points"][0]["convergence"] -= 0.001
    file.write_text(json.dumps(content))
    for command in ("import", "show"):
        line = run("front", command, file, "--storage", storage).error(2)
        assert "front.json" in line and "changed" in line and "hash" in line
    changed = run("fl", "run", study, "--front", file, "--storage", storage).error(2)
    assert "changed" in changed


@pytest.mark.parametrize(
    "command", [["front", "show", "tinny"], ["lookup", "tinny", "--budget", "50%"]]
)
def test_an_unknown_front_is_refused_with_the_nearest_names(
    command: list[str], storage: str
) -> None:
    line = run(*command, "--storage", storage).error(2)
    assert "'tinny'" in line and "tiny close to it" in line


def test_an_unknown_version_of_a_front_is_refused_with_those_there_are(storage: str) -> None:
    assert "versions 1 of it" in run("front", "show", "tiny@7", "--storage", storage).error(2)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.1%", ["too small", "at least"]),
        ("lots", ["'lots'", "40%"]),
        ("0", ["'0'", "> 0"]),
        ("-5", ["'-5'", "> 0"]),
        ("nan", ["'nan'", "> 0"]),
        ("", ["''", "> 0"]),
    ],
)
def test_a_budget_that_buys_nothing_is_refused(text: str, parts: list[str], storage: str) -> None:
    line = run("lookup", "tiny", f"--budget={text}", "--storage", storage).error(2)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(("text", "share"), [("0.4", "40%"), ("1e-3", "0.1%"), (".25", "25%")])
def test_a_budget_of_less_than_one_mac_asks_for_a_share(text: str, share: str) -> None:
    front = make_front()
    with pytest.raises(InputError, match=f"budget '{text}'.*did you mean {share}\\?"):
        read_budget(text, front)
    assert read_budget(share, front) == pytest.approx(float(text) * front.reference_cost)
    assert (read_budget("1", front), read_budget("0.4k", front)) == (1.0, 400.0)
    assert read_budget(text, make_front(cost_metric="latency")) == float(text)  # seconds


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--rounds", "0"], ["rounds", "at least 1", "0"]),
        (["--device", "foo"], ["'foo'", "cpu or cuda"]),
        (["--schedule", "cosin"], ["schedule 'cosin'", "expected one of", "did you mean cosine?"]),
        (["--robust", "multikrum"], ["defence 'multikrum'", "did you mean multi-krum"]),
        (["--schedule", "constant:warmup=30"], ["warmup", "less than the 30 rounds", "found 30"]),
    ],
)
def test_federated_settings_out_of_range_are_refused(
    arguments: list[str], parts: list[str], study: Path, storage: str
) -> None:
    line = run("fl", "run", study, "--front", "tiny", *arguments, "--storage", storage).error(2)
    assert all(part in line for part in parts), line


def test_a_search_in_which_everything_diverges_ends_with_its_reason(
    tmp_path: Path, fresh: str
) -> None:
    bad = write_study(tmp_path, "bad", DIVERGES_ALWAYS)
    ended = run("optimize", bad, "--fleet", "none", "--trials", "2", "--storage", fresh)
    assert ended.code == 1
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    # Lines of progress come before it.
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: all 2 trials failed") and "loss is" in last


def test_debug_shows_the_traceback(tmp_path: Path, fresh: str) -> None:
    bad = write_study(tmp_path, "bad", "\nstudy = 1 / 0\n")
    ended = run("--debug", "optimize", bad, "--fleet", "none", "--storage", fresh)
    assert ended.code != 0
    assert "Traceback" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
    assert "bad.py" in ended.stderr
