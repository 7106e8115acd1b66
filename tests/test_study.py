from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from torch import nn

from distreal_dse import Data, ShortRun, Study
from distreal_dse.dropout import RandomMasks
from distreal_dse.errors import StudyError


def model() -> nn.Module:
    return nn.Identity()


def data() -> Data:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"warm_up": -1}, "warm_up of a study: expected a whole number, 0 or more, found -1"),
        (
            {"mini_batches": 0},
            "mini_batches of a study: expected a whole number, 1 or more, found 0",
        ),
        ({"full_share": 1.0}, "full_share of a study: expected 0 ≤ share < 1, found 1.0"),
        ({"full_share": -0.1}, "full_share"),
        ({"full_share": float("nan")}, "full_share"),
        ({"replicates": 1}, "replicates of a study: expected a whole number, 2 or more, found 1"),
        ({"verification_replicates": 1}, "verification_replicates"),
        ({"warm_up": 2.5}, "warm_up of a study: expected a whole number, 0 or more, found 2.5"),
        ({"mini_batches": 10.0}, "mini_batches of a study: .* found 10.0"),
        ({"replicates": "4"}, "replicates of a study: expected a whole number, 2 or more, found 4"),
    ],
)
def test_a_short_run_out_of_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        ShortRun(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": model()}, None),
        ({"model": 3}, "model of a study: expected a function, found int"),
        ({"data": None}, "data of a study: expected a function, found NoneType"),
        ({"loss": "mse"}, "loss of a study: expected a function, found str"),
        ({"optimizer": 0.1}, "optimizer of a study: expected a function, found float"),
        ({"batch_size": 0}, "batch_size of a study: expected a whole number, 1 or more, found 0"),
        ({"max_rate": 1.0}, "max_rate of a study: expected 0 < rate < 1, found 1.0"),
        ({"max_rate": 0.0}, "max_rate"),
        (
            {"input_shape": (1, 0, 8)},
            r"input_shape of a study: .* found \(1, 0, 8\)",
        ),
        ({"input_shape": ()}, "input_shape"),
        ({"input_shape": 28}, "input_shape of a study: .* found 28"),
        ({"masks": 4}, "masks of a study: expected text or a MaskPolicy, found int"),
        ({"masks": RandomMasks}, "masks of a study: .* MaskPolicy, found the class RandomMasks"),
        ({"batch_size": 2.5}, "batch_size of a study: .* a whole number, 1 or more, found 2.5"),
        ({"batch_size": float("nan")}, "batch_size of a study: .* found nan"),
        ({"granularity": 0}, "granularity of a study: expected a whole number, 1 or more, found 0"),
        ({"granularity": 2.5}, "granularity"),
        ({"scaling": "double"}, "scaling of a study: expected auto, inverted or none"),
        ({"clip_norm": 0.0}, "clip_norm of a study: expected a number above 0, or None, found 0.0"),
    ],
)
def test_a_study_out_of_range_is_refused(wrong: dict[str, Any], message: str | None) -> None:
    settings: dict[str, Any] = {"model": model, "data": data, **wrong}
    if message is None:  # a module is a function of its inputs: only building tells
        Study(**settings)
        return
    with pytest.raises(StudyError, match=message):
        Study(**settings)


def test_whole_numbers_of_other_libraries_are_accepted() -> None:
    study = Study(model, data, batch_size=np.int64(8), masks=RandomMasks())  # type: ignore[arg-type]
    assert study.batch_size == 8


def test_the_package_offers_its_public_names_without_importing_torch() -> None:
    code = (
        "import sys, distreal_dse\n"
        "assert 'torch' not in sys.modules\n"
        "distreal_dse.Study, distreal_dse.Data, distreal_dse.ShortRun\n"
        "assert 'torch' in sys.modules\n"
        "try:\n    distreal_dse.nonsense\n"
        "except AttributeError as error:\n    assert 'nonsense' in str(error)\n"
        "else:\n    raise SystemExit('found nonsense')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
