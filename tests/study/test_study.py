from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from torch.utils.data import Subset, TensorDataset

from distreal_dse import Data, ShortRun, Study
from distreal_dse.convergence import ShortRuns
from distreal_dse.dropout import RandomMasks
from distreal_dse.errors import StudyError
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare


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


PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("name", [field.name for field in fields(Study)])
def test_every_field_of_a_study_is_documented(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def write_images(folder: Path, kind: str, count: int) -> None:
    """Write a part of Fashion-MNIST as its files are, made up: a class is a brightness."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.arange(count, dtype=np.uint8) % 10
    pictures = np.broadcast_to(labels[:, None, None] * 20, (count, 28, 28))
    for name, magic, array in (
        (f"{kind}-labels-idx1-ubyte", 2049, labels),
        (f"{kind}-images-idx3-ubyte", 2051, pictures),
    ):
        head = np.array([magic, *array.shape], dtype=">i4").tobytes()
        (folder / name).write_bytes(head + array.tobytes())


def test_the_example_of_the_page_runs_and_is_fetched_without_a_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_study.py").write_text(python_blocks()[0])
    for kind, count in (("train", 200), ("t10k", 40)):
        write_images(tmp_path / "data" / "FashionMNIST" / "raw", kind, count)
    monkeypatch.chdir(tmp_path)
    study = StudySource("./my_study.py").load()
    assert study.name == "my-study"
    network, data = prepare(study, seed=0)
    parts: list[Any] = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [180, 20, 40]
    for part in parts:
        assert isinstance(part.dataset if type(part) is Subset else part, TensorDataset)
    quick = replace(study, short_run=ShortRun(warm_up=1, mini_batches=1))
    found = ShortRuns(quick, data, network, seed=0).run((16, 32), "search", 0)
    assert 0 <= found.accuracy <= 1


def test_the_mask_policy_of_the_page_is_one() -> None:
    (block,) = (one for one in python_blocks() if "MaskPolicy" in one)
    exec(compile(block, "docs/studies.md", "exec"), {})  # it checks itself
