from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from distreal_dse.cost import device_fingerprint, fingerprint_hash
from distreal_dse.errors import FrontError, InputError, StudyError
from distreal_dse.fronts import export_front, load_latencies, save_front
from distreal_dse.pricing import (
    MeasureSettings,
    Wanted,
    find_subject,
    measure,
    source_of_front,
    stored_latencies,
    subject_of_front,
)
from pricing_examples import FULL, make_front
from tiny_study import NORM_GROUPS, write_study

QUICK = MeasureSettings(repetitions=3)
OPTIONS = """
made = study


def study(width: int = 6):
    def wide():
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3),
        )

    return replace(made, model=wide)
"""
NO_DATA = """
def nothing():
    raise RuntimeError("there is no data here")


study = replace(study, data=nothing)
"""


def test_what_is_measured_is_stored(study: Path, database: Engine) -> None:
    wanted = Wanted(rates=(0.0, 0.5, 0.49))
    subject = find_subject(str(study), wanted, database)
    assert subject.vectors == (FULL, (3, 4))  # rates of equal kept counts are one vector
    rounds: list[tuple[int, int]] = []
    found = measure(subject, QUICK, database, lambda done, total: rounds.append((done, total)))
    assert rounds == [(1, 3), (2, 3), (3, 3)]
    assert [one.counts for one in found.latencies.vectors] == [FULL, (3, 4)]
    stored = stored_latencies(subject, database)
    assert [one.kept_counts for one in stored] == [FULL, (3, 4)]
    full, half = stored
    assert full.ratio_median == 1 and full.latency == full.seconds_median > 0
    assert half.latency == pytest.approx(half.ratio_median * full.latency)
    assert half.seconds_low <= half.seconds_median <= half.seconds_high
    assert half.ratio_low <= half.ratio_median <= half.ratio_high
    assert (half.study, half.batch_size, half.threads, half.repetitions) == ("tiny", 16, 1, 3)
    assert half.device == device_fingerprint("cpu", 1)
    assert half.device_hash == fingerprint_hash(half.device)
    content = json.loads(json.dumps(found.as_json()))
    assert content["vectors"][1]["latency"] == half.latency
    assert 0 < content["vectors"][1]["macs_ratio"] < 1
    assert content["noise"]["pairs"] == 1


def test_the_full_network_is_measured_beside_any_rates(study: Path, database: Engine) -> None:
    subject = find_subject(str(study), Wanted(rates=(0.5,)), database)
    found = measure(subject, QUICK, database)
    assert [one.counts for one in found.latencies.vectors] == [FULL, (3, 4)]


def test_an_interrupted_measurement_keeps_its_rounds(study: Path, database: Engine) -> None:
    subject = find_subject(str(study), Wanted(rates=(0.5,)), database)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(subject, MeasureSettings(repetitions=50), database, interrupt)
    assert [one.repetitions for one in stored_latencies(subject, database)] == [2, 2]


def test_a_name_is_a_front_where_one_is_stored_and_else_a_study(
    study: Path, database: Engine
) -> None:
    front = replace(make_front(study, {(2, 3): 0.1, (4, 5): 0.2}), name="digits-cnn")
    assert find_subject("digits-cnn", Wanted(), database).label == "study digits-cnn"
    save_front(database, front)
    own = Wanted(study=str(study))
    subject = find_subject("digits-cnn", own, database)
    assert subject.label == "front digits-cnn@1"
    assert subject.vectors == ((2, 3), (4, 5))
    assert find_subject("digits-cnn@1", own, database).label == "front digits-cnn@1"
    # Rates say that it is the study.
    assert find_subject("digits-cnn", Wanted(rates=(0.5,)), database).label == "study digits-cnn"


def test_a_front_from_a_file_is_measured_with_the_options_it_was_searched_with(
    tmp_path: Path, database: Engine
) -> None:
    path = write_study(tmp_path, "wide", OPTIONS)
    source = Wanted(rates=(0.5,), options=(("width", "10"),))
    ten = find_subject(str(path), source, database)
    front = make_front(write_study(tmp_path), {(2, 3): 0.1})
    front = replace(
        front,
        model_fingerprint=ten.network.channels.fingerprint,
        groups=front.groups[:1],
        points=(replace(front.points[0], rates=(0.5,), kept_counts=(3,)),),
        settings={"options": {"width": "10"}},
    )
    export_front(front, tmp_path / "front.json")
    file = str(tmp_path / "front.json")
    own = Wanted(study=str(path))
    assert find_subject(file, own, database).network.full_counts == (10,)
    with pytest.raises(FrontError, match="for another model than study wide"):
        find_subject(file, replace(own, options=(("width", "9"),)), database)


def test_only_the_points_of_a_front_are_shown_of_what_is_stored(
    study: Path, database: Engine
) -> None:
    measure(find_subject(str(study), Wanted(rates=(0.25, 0.5)), database), QUICK, database)
    subject = subject_of_front(make_front(study, {(3, 4): 0.1}), Wanted(study=str(study)))
    assert [one.kept_counts for one in stored_latencies(subject, database)] == [FULL, (3, 4)]
    assert len(load_latencies(database, subject.network.channels.fingerprint)) == 3


def test_no_data_is_needed_where_the_shape_is_known(tmp_path: Path, database: Engine) -> None:
    without = write_study(tmp_path, "without", NO_DATA)
    with pytest.raises(StudyError, match="there is no data here"):
        find_subject(str(without), Wanted(), database)
    given = find_subject(str(without), Wanted(input_shape=(1, 6, 6), rates=(0.5,)), database)
    shaped = "\nstudy = replace(study, input_shape=(1, 6, 6))\n"
    described = write_study(tmp_path, "described", NO_DATA + shaped)
    found = find_subject(str(described), Wanted(), database)
    assert found.input_shape == given.input_shape == (1, 6, 6)
    assert found.network.channels.fingerprint == given.network.channels.fingerprint
    measure(given, QUICK, database)
    # It is the same network that the data make.
    usual = find_subject(str(write_study(tmp_path)), Wanted(), database)
    assert usual.network.channels.fingerprint == given.network.channels.fingerprint
    assert usual.input_shape == (1, 6, 6)


def test_a_front_is_refused_for_inputs_of_another_shape(study: Path) -> None:
    front = make_front(study, {(3, 4): 0.1})
    with pytest.raises(FrontError, match=r"another model than study tiny .* inputs \(1, 8, 8\)"):
        subject_of_front(front, Wanted(study=str(study), input_shape=(1, 8, 8)))


def test_a_study_that_the_user_never_gave_has_to_be_named(study: Path) -> None:
    front = replace(make_front(study, {(3, 4): 0.1}), study="elsewhere")
    with pytest.raises(InputError, match="'elsewhere', which is not a shipped one.*--study FILE"):
        subject_of_front(front, Wanted())


def test_a_study_that_the_user_gave_is_found_by_its_name_until_it_is_changed(
    tmp_path: Path, database: Engine
) -> None:
    path = write_study(tmp_path, "known")
    front = save_front(database, make_front(path, {(3, 4): 0.1}))  # which loads it
    assert find_subject(front.label, Wanted(), database).vectors == ((3, 4),)
    assert source_of_front(front, Wanted()).spec == str(path)
    path.write_text(path.read_text() + "\n# changed\n")
    with pytest.raises(StudyError, match="found it changed; give its file with --study FILE"):
        source_of_front(front, Wanted())
    assert source_of_front(front, Wanted(study=str(path))).load().name == "known"


def test_a_file_that_a_front_names_is_not_imported(study: Path, tmp_path: Path) -> None:
    trap, marker = tmp_path / "trap.py", tmp_path / "imported"
    trap.write_text(f"open({str(marker)!r}, 'w')\n")
    for settings in ({}, {"options": {}, "study file": str(trap)}):
        front = replace(make_front(study, {(3, 4): 0.1}), study=str(trap), settings=settings)
        with pytest.raises(InputError, match="--study FILE"):
            subject_of_front(front, Wanted())
    assert not marker.exists()


def test_rates_are_not_for_fronts(study: Path, database: Engine) -> None:
    save_front(database, make_front(study, {(3, 4): 0.1}))
    with pytest.raises(InputError, match="--rates are for a study"):
        find_subject("tiny@1", Wanted(rates=(0.5,), study=str(study)), database)


def test_programs_get_channels_beside_units(tmp_path: Path, database: Engine) -> None:
    study = write_study(tmp_path, "grouped", NORM_GROUPS)
    subject = find_subject(str(study), Wanted(rates=(0.0, 0.5)), database)
    found = measure(subject, MeasureSettings(repetitions=3), database).as_json()["vectors"]
    assert [one["kept_counts"] for one in found] == [[6, 8], [3, 4]]
    assert [one["kept_channels"] for one in found] == [[12, 32], [6, 16]]
