"""Things chosen by text."""

import pytest

from distreal_dse.errors import InputError
from distreal_dse.specs import parse_spec, split_specs, with_setting


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("small", ["small"]),
        ("small, nested", ["small", "nested"]),
        ("nested:levels=2, lr=0.1, small", ["nested:levels=2,lr=0.1", "small"]),
        ("nested:levels=2,lr=0.1,small", ["nested:levels=2,lr=0.1", "small"]),
        ("small:share=0.5,nested:levels=2,lr=1", ["small:share=0.5", "nested:levels=2,lr=1"]),
        ("lr=1,small", ["lr=1", "small"]),  # which nobody knows, and is told so
    ],
)
def test_settings_stay_with_the_name_before_them(text: str, parts: list[str]) -> None:
    assert split_specs(text) == parts


def test_a_setting_is_added_to_those_there_are() -> None:
    text = with_setting(with_setting("nested", "levels", "2"), "lr", "0.1")
    assert text == "nested:levels=2,lr=0.1"
    assert parse_spec("strategy", text) == ("nested", {"levels": "2", "lr": "0.1"})


@pytest.mark.parametrize("text", ["a:", "a:b", "a:b=", "a:=1", "a:b=1,b=2"])
def test_settings_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected NAME:SETTING=VALUE"):
        parse_spec("thing", text)
