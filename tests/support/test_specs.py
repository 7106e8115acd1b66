"""Things chosen by text."""

from collections.abc import Callable
from contextlib import suppress
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distreal_dse.dropout import make_policy
from distreal_dse.errors import FrontError, InputError
from distreal_dse.fronts import check_front_name
from distreal_dse.search.proposer import make_sampler
from distreal_dse.support.specs import parse_spec, slug, split_specs, with_setting
from fl.averaging import make_averaging
from fl.schedules import make_schedule
from fl.server_optimizers import make_server_optimizer
from fl.store.specs import RunSpec
from fl.strategies import check_strategy
from fl.world.availability import make_availability
from fl.world.splits import make_split


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("small", ["small"]),
        ("small, nested", ["small", "nested"]),
        ("nested:levels=2, lr=0.1, small", ["nested:levels=2,lr=0.1", "small"]),
        ("nested:levels=2,lr=0.1,small", ["nested:levels=2,lr=0.1", "small"]),
        ("small:share=0.5,nested:levels=2,lr=1", ["small:share=0.5", "nested:levels=2,lr=1"]),
        (
            "small:schedule=cosine:end=0:warmup=3,lr=1,nested:schedule=step:every=3,fedavg",
            ["small:schedule=cosine:end=0:warmup=3,lr=1", "nested:schedule=step:every=3", "fedavg"],
        ),
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


@pytest.mark.parametrize(
    ("make", "wrong", "right"),
    [
        (lambda name: check_strategy(name, None), "distrael", "distreal"),
        (lambda name: RunSpec("digits-cnn", strategy=name), "hetrofl:lr=0.1", "heterofl"),
        (make_split, "dirichlt:alpha=0.3", "dirichlet"),
        (make_availability, "markow", "markov"),
        (make_availability, "traces:phones.csv", "trace:PATH"),
        (make_server_optimizer, "momentun:lr=1", "momentum"),
        (make_schedule, "exponentail:factor=0.9", "exponential"),
        (make_averaging, "contributers", "contributors"),
        (make_policy, "radnom-round", "random-round"),
        (lambda name: make_sampler(name, 0), "nsga-2", "nsga2"),
    ],
)
def test_an_unknown_name_is_refused_with_the_choices_and_the_nearest_of_them(
    make: Callable[[str], object], wrong: str, right: str
) -> None:
    with pytest.raises(InputError) as refused:
        make(wrong)
    name = wrong.partition(":")[0]
    assert f"found '{name}'; did you mean {right}" in str(refused.value)
    assert "expected one of " in str(refused.value)


def test_a_name_far_from_all_is_refused_with_the_choices_alone() -> None:
    with pytest.raises(InputError) as refused:
        make_averaging("zzzzzz")
    expected = "averaging 'zzzzzz': expected one of plain, contributors, pooled, found 'zzzzzz'"
    assert str(refused.value) == expected


def test_a_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="found 'aplha'; did you mean alpha"):
        make_split("dirichlet:aplha=0.3")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my study", "my-study"),
        ("schöne Studie", "schöne-Studie"),
        ("scho\u0308ne", "schöne"),  # as some file systems write it
        ("a/b (copy)", "a-b-copy"),
        ("-a.json", "a-json"),
        ("2026", "study-2026"),
        ("!", "study"),
    ],
)
def test_any_text_becomes_a_name_that_a_front_can_have(text: str, name: str) -> None:
    assert slug(text) == name
    check_front_name(name)


@given(st.text(max_size=12))
def test_names_that_a_front_can_have_stay_as_they_are(text: str) -> None:
    check_front_name(slug(text))
    assert slug(slug(text)) == slug(text)
    with suppress(FrontError):
        check_front_name(text)
        assert slug(text) == normalize("NFC", text)
