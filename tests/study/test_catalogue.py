from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from distreal_dse.errors import StudyError
from distreal_dse.study.catalogue import StudySource, shipped_description, shipped_studies
from tiny_study import write_study

OPTIONS = """
made = study


def study(
    width: int = 6,
    rate: float = 0.05,
    wide: bool = False,
    folder: Path | None = None,
    label: str = "plain",
    untyped="nothing",
):
    return replace(made, description=repr((width, rate, wide, folder, label, untyped)))
"""


@pytest.fixture
def options(tmp_path: Path) -> Path:
    return write_study(tmp_path, "with_options", "\nfrom pathlib import Path\n" + OPTIONS)


def described(path: Path, *given: tuple[str, str]) -> str:
    return StudySource(str(path), given).load().description


def test_shipped_studies_are_known_by_name() -> None:
    assert shipped_studies() == [
        "cifar10-cnn", "cifar10-densenet40", "cifar10-resnet20", "cifar100-resnet20", "digits-cnn",
        "digits-plain", "femnist-cnn",
    ]  # fmt: skip
    assert StudySource("digits-cnn").load().name == "digits-cnn"


@pytest.mark.parametrize("name", shipped_studies())
def test_what_is_listed_of_a_shipped_study_is_what_it_says_of_itself(name: str) -> None:
    assert shipped_description(name) == StudySource(name).load().description != ""


def test_a_study_without_a_name_is_named_after_its_file(tmp_path: Path) -> None:
    path = write_study(tmp_path, "my_own_study")
    assert StudySource(str(path)).load().name == "my-own-study"


def test_a_name_of_its_own_is_kept(tmp_path: Path) -> None:
    path = write_study(tmp_path, change="\nstudy = replace(study, name='chosen')\n")
    assert StudySource(str(path)).load().name == "chosen"


def test_options_have_their_defaults(options: Path) -> None:
    assert described(options) == "(6, 0.05, False, None, 'plain', 'nothing')"


def test_options_are_converted_to_the_annotated_types(options: Path) -> None:
    found = described(
        options,
        ("width", "12"), ("rate", "1e-3"), ("wide", "yes"), ("folder", "/data/here"),
        ("label", "12"), ("untyped", "12"),
    )  # fmt: skip
    assert found == "(12, 0.001, True, PosixPath('/data/here'), '12', '12')"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0", False), ("No", False)])
def test_booleans_are_read_as_words(options: Path, text: str, value: bool) -> None:
    assert described(options, ("wide", text)) == f"(6, 0.05, {value}, None, 'plain', 'nothing')"


def test_a_path_may_begin_with_the_home_folder(options: Path) -> None:
    assert repr(Path.home() / "cifar") in described(options, ("folder", "~/cifar"))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [("width", "1.5", "int"), ("rate", "fast", "float"), ("wide", "maybe", "bool")],
)
def test_a_badly_typed_option_is_refused(
    options: Path, name: str, text: str, expected: str
) -> None:
    with pytest.raises(StudyError, match=f"{name}={text}.*expected {expected}"):
        described(options, (name, text))


def test_an_unknown_option_is_refused_with_the_known_ones(options: Path) -> None:
    with pytest.raises(StudyError, match="no option 'depth': expected one of: width, rate"):
        described(options, ("depth", "3"))


def test_a_study_that_is_no_function_takes_no_options(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="takes no options: found depth"):
        described(write_study(tmp_path), ("depth", "3"))


@pytest.mark.parametrize(
    "annotation", ["Literal['small', 'large']", "'NotImportedAtRunTime'", "list[int] | None"]
)
def test_an_option_of_a_type_that_text_can_not_give_is_refused_in_plain_words(
    tmp_path: Path, annotation: str
) -> None:
    change = f"""
    from typing import Literal

    made = study


    def study(size: {annotation} = None):
        return made
    """
    path = write_study(tmp_path, change=textwrap.dedent(change))
    try:
        StudySource(str(path), (("size", "medium"),)).load()
    except StudyError as error:
        assert "size" in str(error)


def test_a_study_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_a_study.py").write_text("WORDS = 'from next door'\n")
    change = "\nimport neighbour_of_a_study as n\nstudy = replace(study, description=n.WORDS)\n"
    assert described(write_study(tmp_path, change=change)) == "from next door"


def test_an_error_in_the_file_names_its_kind_and_line(tmp_path: Path) -> None:
    path = write_study(tmp_path, change="\n\nraise RuntimeError('broken on purpose')\n")
    line = path.read_text().splitlines().index("raise RuntimeError('broken on purpose')") + 1
    with pytest.raises(StudyError, match=rf"RuntimeError: broken on purpose \(line {line}\)"):
        StudySource(str(path)).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("\nstudy = (\n", r"fails to import: SyntaxError: .* \(line \d+\)"),
        ("\nimport nowhere_to_be_found\n", "fails to import: ModuleNotFoundError.*nowhere_to"),
        ("\nraise SystemExit(0)\n", "fails to import: SystemExit"),
        ("\ndel study\n", "has no object named 'study'"),
        ("\nstudy = 3\n", "is a int: expected a Study"),
        ("\ndef study():\n    return 3\n", "returned a int: expected a Study"),
        (
            "\nstudy = replace(study, batch_size=0)\n",
            "batch_size of a study: expected a whole number, 1 or more",
        ),
    ],
)
def test_a_file_without_a_usable_study_is_refused(
    tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        StudySource(str(write_study(tmp_path, change=change))).load()


def test_an_error_of_several_lines_is_told_in_one(tmp_path: Path) -> None:
    path = write_study(tmp_path, change="\nraise RuntimeError('first\\nsecond')\n")
    with pytest.raises(StudyError) as caught:
        StudySource(str(path)).load()
    assert "\n" not in str(caught.value)


def test_an_error_of_the_study_function_is_told(tmp_path: Path) -> None:
    path = write_study(tmp_path, change="\ndef study(must: int):\n    return 1 / 0\n")
    with pytest.raises(StudyError, match="missing 1 required positional argument: 'must'"):
        StudySource(str(path)).load()
    with pytest.raises(StudyError, match="ZeroDivisionError"):
        StudySource(str(path), (("must", "1"),)).load()


def test_changes_replace_fields_of_the_study(tmp_path: Path) -> None:
    source = StudySource(
        str(write_study(tmp_path)), changes=(("masks", "core"), ("granularity", 4))
    )
    study = source.load()
    assert (study.masks, study.granularity, study.name) == ("core", 4, "tiny")


def test_a_change_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = StudySource(str(write_study(tmp_path)), changes=(("granularity", 0),))
    with pytest.raises(StudyError, match="granularity of a study"):
        source.load()


@pytest.mark.parametrize("name", ["good", "two-words"])
def test_a_name_beside_a_file_of_that_name_is_answered_with_its_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stem = name.replace("-", "_")
    write_study(tmp_path, stem)
    with pytest.raises(StudyError, match=rf"study '{name}' is not known.*mean \./{stem}\.py\?"):
        StudySource(name).load()
    assert StudySource(f"./{stem}.py").load().name == name


@pytest.mark.parametrize(
    ("stem", "name"),
    [("my study", "my-study"), ("Größe", "Größe"), ("Gro\u0308ße 2", "Größe-2"), ("7", "study-7")],
)
def test_a_file_of_any_name_gives_a_name_that_a_front_can_have(
    stem: str, name: str, tmp_path: Path
) -> None:
    assert StudySource(str(write_study(tmp_path, stem))).load().name == name
