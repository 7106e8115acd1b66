from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import Front, export_front, import_front
from front_examples import fronts, make_front

reuse_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    export_front(make_front(), tmp_path / "front.json")
    return tmp_path / "front.json"


@reuse_folder
@given(front=fronts())
def test_an_exported_front_comes_back_equal(front: Front, tmp_path: Path) -> None:
    export_front(front, tmp_path / "front.json")
    back = import_front(tmp_path / "front.json")
    assert back == front and back.content_hash == front.content_hash


def test_an_imported_front_has_no_version(path: Path) -> None:
    export_front(make_front(version=4), path)
    assert import_front(path) == replace(make_front(version=4), version=0)


def test_export_replaces_the_file_and_leaves_nothing_else(path: Path) -> None:
    export_front(make_front(name="second"), path)
    assert import_front(path).name == "second"
    assert [file.name for file in path.parent.iterdir()] == ["front.json"]


def test_a_failed_export_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="can't be written"):
        export_front(make_front(), tmp_path / "folder")
    with pytest.raises(InputError, match="can't be written.*No such file"):
        export_front(make_front(), tmp_path / "missing" / "front.json")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_file_names_its_schema_and_hash(path: Path) -> None:
    document = json.loads(path.read_text())
    assert document["schema"] == "distreal-front/1"
    assert document["content_hash"] == make_front().content_hash


def test_layout_and_whole_numbers_do_not_count_as_changes(path: Path) -> None:
    # What a JSON tool in another language may do: 1600.0 → 1600, other order, no line breaks.
    document = json.loads(path.read_text())
    document["reference_cost"] = 1600
    path.write_text(json.dumps(dict(reversed(document.items()))))
    assert import_front(path) == make_front()


def leaves(value: Any, route: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*route, key))]
    if isinstance(value, list):
        return [leaf for key, inner in enumerate(value) for leaf in leaves(inner, (*route, key))]
    return [route]


def test_the_smallest_change_of_any_value_is_refused(path: Path) -> None:
    document = json.loads(path.read_text())
    changed = 0
    for *route, last in leaves(document):
        holder = document
        for key in route:
            holder = holder[key]
        original = holder[last]
        if isinstance(original, str):
            holder[last] = original[:-1] + ("0" if original[-1] != "0" else "1")
        elif isinstance(original, bool):
            holder[last] = not original
        elif isinstance(original, float):
            holder[last] = math.nextafter(original, math.inf)
        else:
            holder[last] = (original or 0) + 1
        path.write_text(json.dumps(document))
        with pytest.raises(FrontError):
            import_front(path)
        holder[last] = original
        changed += 1
    path.write_text(json.dumps(document))
    assert import_front(path) == make_front()
    assert changed > 40


def test_a_changed_number_is_refused_with_both_hashes(path: Path) -> None:
    path.write_text(path.read_text().replace('"accuracy": 0.5', '"accuracy": 0.6', 1))
    expected = make_front().content_hash[:12]
    with pytest.raises(FrontError, match=rf"expected content hash {expected}…, found \w{{12}}…"):
        import_front(path)


def edit(**changes: Any) -> Any:
    def apply(text: str) -> str:
        return json.dumps({**json.loads(text), **changes})

    return apply


def without(key: str) -> Any:
    def apply(text: str) -> str:
        document = json.loads(text)
        del document[key]
        return json.dumps(document)

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], "expected a front as JSON"),
        (lambda text: "", "expected a front as JSON"),
        (lambda text: "[" * 100_000, "expected a front as JSON"),
        (lambda text: "[]", "found no schema"),
        (lambda text: "{}", "found no schema"),
        (edit(schema="distreal-front/3"), "schema 'distreal-front/1', found 'distreal-front/3'"),
        (edit(schema=["x" * 100]), "found .*…; export it again"),
        (without("device"), "missing 'device'"),
        (edit(extra=1), "unknown 'extra'"),
        (edit(groups=[{"name": "a", "channels": 1, "x": 0}]), r"groups\[0\]: .*unknown 'x'"),
        (edit(groups={}), "groups: expected a list"),
        (edit(groups=[{"name": "a", "channels": 16.0}]), "channels: expected a whole number"),
        (edit(groups=[{"name": "a", "channels": True}]), "channels: expected a whole number"),
        (
            edit(groups=[{"name": "a", "channels": 10**30}]),
            "channels: expected .* 32 bits, found 1000",
        ),
        (lambda text: text.replace('"trial": 3', f'"trial": {2**31}'), "trial: expected .*32 bits"),
        (lambda text: text.replace('"replicates": 8', f'"replicates": {10**4000}', 1), "32 bits"),
        (edit(reference_cost="1600"), "reference_cost: expected a number, found '1600'"),
        (edit(reference_cost=True), "reference_cost: expected a number"),
        (edit(reference_cost=10**400), "reference cost: expected a finite number"),
        (edit(reference_cost=None), "reference_cost: expected a number, found None"),
        (edit(settings=[]), "settings: expected an object"),
        (edit(points=[]), "at least one point"),
        (edit(points=[3]), r"points\[0\]: expected an object"),
        (lambda text: text.replace('"trial": 3', '"trial": "3"'), "a whole number or null"),
        (lambda text: text.replace('"uniform": true', '"uniform": 1', 1), "true or false"),
        (lambda text: text.replace('"accuracy": 0.5', '"accuracy": NaN', 1), "found: NaN"),
        (lambda text: text.replace('"cost": 100.0', '"cost": Infinity'), "found: Infinity"),
        (lambda text: text.replace('"cost": 100.0', '"cost": 1e999'), "finite number, found inf"),
        (edit(content_hash="0" * 64), "expected content hash 000000000000…"),
        (edit(content_hash=5), "content_hash: expected text"),
    ],
)
def test_what_is_no_exchange_file_is_refused(path: Path, change: Any, message: str) -> None:
    path.write_text(change(path.read_text()))
    with pytest.raises(FrontError, match=message) as caught:
        import_front(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_files_folders_and_other_bytes_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    with pytest.raises(FrontError, match=f"{re.escape(str(missing))}.*No such file"):
        import_front(missing)
    with pytest.raises(FrontError, match="directory"):
        import_front(tmp_path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\x00\x80")
    with pytest.raises(FrontError, match="expected a front as JSON"):
        import_front(binary)


def test_a_front_with_memory_comes_back_equal_and_older_versions_say_why_not(
    tmp_path: Path,
) -> None:
    front = make_front()
    some = (replace(front.points[0], memory=5 * 2**31), *front.points[1:])  # more than 32 bits
    front, path = replace(front, points=some), tmp_path / "front.json"
    export_front(front, path)
    assert json.loads(path.read_text())["schema"] == "distreal-front/2"
    assert import_front(path) == front
    for bad, message in (("0", "memory"), ("12.5", "changed"), ('"1"', "a number or null")):
        path.write_text(path.read_text().replace(str(5 * 2**31), bad))
        with pytest.raises(FrontError, match=message):
            import_front(path)
        export_front(front, path)
