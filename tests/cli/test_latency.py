from __future__ import annotations

import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import Ended, finish, run, start, wait_until
from distreal_dse.fronts import load_front, open_database, save_front
from tiny_study import write_study

# The same network; says when more steps were taken than a measurement's warm-up and first rounds.
SAYS_WHEN = """
calls = []


def count(layer, inputs, outputs):
    import time
    from pathlib import Path

    calls.append(1)
    time.sleep(0.002)
    if len(calls) > 600:
        Path(__file__).with_suffix(".reached").touch()


def counted():
    network = model()
    network[0].register_forward_hook(count)
    return network


study = replace(study, model=counted)
"""
QUICK = ("--repetitions", "3")


@pytest.fixture(scope="module")
def timed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Ended]:
    """The URL of a database with a front in seconds, ``tiny@1``, and what made it said."""
    url = f"sqlite:///{tmp_path_factory.mktemp('latency')}/search.db"
    return url, run("optimize", study, "--trials", "10", "--cost", "latency", "--storage", url)


def test_a_study_is_measured_for_people_and_for_programs(study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/m.db"
    asked = ("measure", study, "--rates", "0,0.5", *QUICK, "--storage", url)
    people = run(*asked, installed=True)
    assert (people.code, people.stdout) == (0, "")
    for part in ("mini-batch of 16 for study tiny, 3 times", "MACs", "6-8", "3-4", "100.0%"):
        assert part in people.stderr
    assert "Measured on" in people.stderr and "3/3" in people.stderr
    assert "3 repetitions are too few" in people.stderr
    programs = run(*asked, "--json")
    found = programs.json
    assert [one["kept_counts"] for one in found["vectors"]] == [[6, 8], [3, 4]]
    assert found["study"] == "tiny" and found["front"] is None
    assert found["vectors"][1]["latency"] > 0 and found["device"]["kind"] == "cpu"
    kept = run("measure", study, "--stored", "--json", "--storage", url).json["measurements"]
    assert [one["kept_counts"] for one in kept] == [[6, 8], [3, 4]] * 2
    table = run("measure", study, "--stored", "--storage", url)
    assert kept[0]["device_hash"][:6] in table.stderr and found["device"]["cpu"] in table.stderr


def test_other_batch_sizes_and_shapes_can_be_measured(study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/m.db"
    asked = ("--batch-size", "4", "--input-shape", "1,9,9", "--rates", "0.5")
    found = run("measure", study, *asked, *QUICK, "--json", "--storage", url).json
    assert found["batch_size"] == 4
    assert len(found["vectors"]) == 2


def test_nothing_stored_is_said(study: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/m.db"
    open_database(url).dispose()
    ended = run("measure", study, "--stored", "--storage", url)
    assert ended.code == 0 and "Nothing is stored of study tiny yet" in ended.stderr


def test_the_points_of_a_front_are_measured(storage: str, study: Path, tmp_path: Path) -> None:
    file, own = tmp_path / "front.json", f"sqlite:///{tmp_path}/own.db"
    run("front", "export", "tiny", file, "--storage", storage)
    ended = run("measure", file, "--study", study, *QUICK, "--json", "--storage", own)
    points = run("front", "show", "tiny", "--json", "--storage", storage).json["points"]
    assert ended.json["front"] == "tiny"
    measured = [one["kept_counts"] for one in ended.json["vectors"]]
    assert measured[0] == [6, 8]  # the full network, whether it is a point or not
    assert {tuple(point["kept_counts"]) for point in points} <= set(map(tuple, measured))


def test_a_search_by_latency_shows_seconds_and_the_device(timed: tuple[str, Ended]) -> None:
    url, ended = timed
    assert ended.code == 0, ended.stderr
    assert ended.stdout == ""
    assert "cost (s)" in ended.stderr and "Measured on" in ended.stderr
    assert "latency" in ended.stderr  # a stage of the progress
    (listed,) = run("front", "list", "--json", "--storage", url).json
    assert listed["cost_metric"] == "latency" and listed["device"]["threads"] == 1


def test_lookup_takes_seconds_or_a_share_for_a_front_in_seconds(timed: tuple[str, Ended]) -> None:
    url, _ = timed
    front = run("front", "show", "tiny", "--json", "--storage", url).json
    dearest = front["points"][-1]
    ms = 1e3 * dearest["cost"]
    share = 100 * dearest["cost"] / front["reference_cost"]
    for text in (f"{1.01 * ms}ms", f"{1.01e3 * ms}us", f"{1.01e-3 * ms}s", f"{1.01e-3 * ms}"):
        ended = run("lookup", "tiny", "--budget", text, "--json", "--storage", url)
        assert {name: ended.json[name] for name in dearest} == dearest, text
    ended = run("lookup", "tiny", "--budget", f"{1.01 * share}%", "--storage", url)
    assert " s (" in ended.stderr and "MACs" not in ended.stderr
    line = run("lookup", "tiny", "--budget", "1M", "--storage", url).error(2)
    assert "'1M'" in line and "of s such as 12ms" in line


def test_lookup_of_seconds_in_a_front_of_macs_is_refused(storage: str) -> None:
    line = run("lookup", "tiny", "--budget", "12ms", "--storage", storage).error(2)
    assert "'12ms'" in line and "of MACs such as 1.2M" in line


def test_federated_training_runs_on_the_clock_of_a_front_in_seconds(
    timed: tuple[str, Ended], study: Path
) -> None:
    url, _ = timed
    small = ("--rounds", "2", "--devices", "5", "--cohort", "2", "--json")
    ended = run("fl", "run", study, "--front", "tiny", *small, "--storage", url)
    assert ended.code == 0, ended.stderr
    seconds = [one["virtual_seconds"] for one in ended.json["rounds"]]
    assert 0 == seconds[0] < seconds[1] < seconds[2]


def test_strategies_are_compared_by_measured_seconds(
    timed: tuple[str, Ended], study: Path, tmp_path: Path
) -> None:
    url, _ = timed
    names = ["distreal", "distreal-uniform", "nested", "small", "heterofl", "fjord-kd", "fedavg"]
    asked = (
        "fl", "compare", study, "--front", "tiny", "--rounds", "2", "--devices", "4",
        "--cohort", "2", "--seeds", "1", "--strategies", ",".join(names), "--json",
        "--storage", url,
    )  # fmt: skip
    compared = run(*asked, "--name", "here")
    assert compared.code == 0, compared.stderr
    assert [one["strategy"] for one in compared.json["strategies"]] == names
    # Another machine has the front and not the device, and gets the same.
    file, own = tmp_path / "front.json", f"sqlite:///{tmp_path}/own.db"
    run("front", "export", "tiny", file, "--storage", url)
    assert run("front", "import", file, "--storage", own).code == 0
    again = run(*asked[:-1], own, "--name", "there").json
    for one, other in zip(compared.json["strategies"], again["strategies"], strict=True):
        assert {**one, "comparison": 0} == {**other, "comparison": 0}


def test_a_front_without_prices_for_others_is_refused_before_training(
    timed: tuple[str, Ended], study: Path, tmp_path: Path
) -> None:
    url, _ = timed
    own = f"sqlite:///{tmp_path}/own.db"
    engine, found = open_database(own), load_front(open_database(url), "tiny")
    latency = {name: one for name, one in found.settings["latency"].items() if name != "one rate"}
    save_front(engine, replace(found, settings={**found.settings, "latency": latency}, version=0))
    engine.dispose()
    asked = ("fl", "compare", study, "--front", "tiny", "--rounds", "2", "--storage", own)
    line = run(*asked, "--strategies", "distreal,small").error(2)
    assert "'small' prices its own vectors" in line and "found none" in line
    assert "`distreal-dse front reprice tiny@1`" in line
    assert run(*asked, "--strategies", "distreal", "--seeds", "1").code == 0


def test_a_report_of_a_front_in_seconds_says_so(timed: tuple[str, Ended], tmp_path: Path) -> None:
    url, _ = timed
    file = tmp_path / "report.html"
    assert run("report", "tiny", "--out", file, "--storage", url).code == 0
    page = file.read_text()
    assert "training time per mini-batch" in page
    assert "MACs are counted" not in page


def test_a_front_is_repriced_beside_the_old_one(storage: str, study: Path, tmp_path: Path) -> None:
    file, own = tmp_path / "front.json", f"sqlite:///{tmp_path}/own.db"
    run("front", "export", "tiny", file, "--storage", storage)
    run("front", "import", file, "--storage", own)
    asked = ("front", "reprice", "tiny", "--study", study, *QUICK, "--storage", own)
    people = run(*asked, "--name", "here")
    assert (people.code, people.stdout) == (0, "")
    assert "Front here@1" in people.stderr and "of front tiny@1" in people.stderr
    assert "Measured on" in people.stderr
    programs = run(*asked, "--json").json
    assert programs["cost_metric"] == "latency"
    assert programs["settings"]["repriced from"]["front"] == "tiny@1"
    fronts = run("front", "list", "--json", "--storage", own).json
    assert {front["name"] for front in fronts} == {"tiny", "here", programs["name"]}


@pytest.mark.parametrize("command", ["measure", "front reprice"])
def test_an_interrupted_measurement_keeps_what_it_has(
    command: str, storage: str, study: Path, tmp_path: Path
) -> None:
    slow = write_study(tmp_path, "slow", SAYS_WHEN)
    front, file = tmp_path / "front.json", tmp_path / "own.db"
    run("front", "export", "tiny", front, "--storage", storage)
    own = f"sqlite:///{file}"
    asked = (*command.split(), front, "--study", slow, "--storage", own)
    process = start(*asked, "--repetitions", "100000")
    wait_until(slow.with_suffix(".reached").exists)
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.code == 130 and ended.stdout == ""
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert "interrupted" in last and "rounds is kept" in last and "--stored" in last
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT repetitions FROM latencies").fetchall()
    assert rows and all(count >= 1 for (count,) in rows)
    assert connection.execute("SELECT count(*) FROM fronts").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["STUDY", "--repetitions", "0"], ["--repetitions is 0", "1 or more"]),
        (["STUDY", "--threads", "0"], ["--threads is 0", "1 to"]),
        (["STUDY", "--batch-size", "0"], ["--batch-size is 0", "1 or more"]),
        (["STUDY", "--rates", "0,half"], ["--rates is '0,half'", "0,0.25,0.5"]),
        (["STUDY", "--rates", "1"], ["--rates is '1'", "below 1"]),
        (["STUDY", "--rates", ""], ["--rates is ''"]),
        (["STUDY", "--input-shape", "1,x"], ["--input-shape is '1,x'", "3,32,32"]),
        (["STUDY", "--input-shape", "1,0,6"], ["--input-shape is '1,0,6'"]),
        (["STUDY", "--input-shape", "3,6,6"], ["(2, 3, 6, 6)", "channels"]),
        (["STUDY", "--device", "tpu"], ["'tpu'", "cpu or cuda"]),
        (["tinny"], ["'tinny'", "tiny close to it", "studies"]),
        (["tiny@9"], ["'tiny@9'", "versions 1"]),
        (["tiny", "--study", "digits-cnn"], ["tiny@1", "another model", "digits-cnn"]),
        (["nowhere.json"], ["nowhere.json", "exchange file"]),
        (["nowhere.py"], ["nowhere.py", "does not exist"]),
    ],
)
def test_what_can_not_be_measured_is_refused(
    arguments: list[str], parts: list[str], study: Path, storage: str
) -> None:
    given = [str(study) if argument == "STUDY" else argument for argument in arguments]
    line = run("measure", *given, "--storage", storage).error(2)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tinny"], ["'tinny'", "tiny close to it"]),
        (["tiny", "--study", "digits-cnn"], ["tiny@1", "another model", "digits-cnn"]),
        (["tiny", "--study", "STUDY", "--name", "a b"], ["'a b'", "--name"]),
        (["tiny", "--study", "STUDY", "--repetitions", "0"], ["--repetitions is 0"]),
    ],
)
def test_what_can_not_be_repriced_is_refused(
    arguments: list[str], parts: list[str], study: Path, storage: str
) -> None:
    given = [str(study) if argument == "STUDY" else argument for argument in arguments]
    line = run("front", "reprice", *given, "--storage", storage).error(2)
    assert all(part in line for part in parts), line


def test_a_search_is_not_continued_by_another_cost(
    timed: tuple[str, Ended], study: Path, storage: str
) -> None:
    url, _ = timed
    refused = run("optimize", study, "--fleet", "none", "--trials", "11", "--storage", url)
    assert refused.code == 2 and "Traceback" not in refused.stderr
    assert "error: search 'tiny' was begun with cost = latency, now it is macs" in refused.stderr
    asked = ("optimize", study, "--trials", "21", "--cost", "latency", "--storage", storage)
    assert "begun with cost = macs, now it is latency" in run(*asked).error(2)
    assert "'joules': expected macs or latency" in run("optimize", study, "--cost", "joules").error(
        2
    )


def test_showing_a_front_in_seconds_says_where_it_was_measured(timed: tuple[str, Ended]) -> None:
    url, _ = timed
    shown = run("front", "show", "tiny", "--storage", url)
    assert "cost (s)" in shown.stderr and "Measured on" in shown.stderr


def test_showing_what_is_stored_makes_no_database(study: Path, tmp_path: Path) -> None:
    ended = run("measure", study, "--stored", "--storage", f"sqlite:///{tmp_path}/typo.db")
    assert ended.code == 1 and "found no such file" in ended.stderr
    assert not list(tmp_path.iterdir())
