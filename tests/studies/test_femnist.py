"""FEMNIST from files as LEAF's preprocessing writes them, here with a few writers of noise."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distreal_dse import Data
from distreal_dse.data.batches import check_data, fetch, size_of
from distreal_dse.dropout import DropoutTrainer, RandomMasks
from distreal_dse.errors import DataError
from distreal_dse.study.catalogue import StudySource
from distreal_dse.study.preparation import prepare
from fl.world.splits import OwnersSplit, labels_of, owners_of, split_dataset

Content = dict[str, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache directory of the user, empty and of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def written(writers: dict[str, int], seed: int = 0) -> Content:
    """Noise by so many samples of each writer, pixels k / 255."""
    random = np.random.default_rng(seed)
    return {
        "users": list(writers),
        "num_samples": list(writers.values()),
        "user_data": {
            writer: {
                "x": (random.integers(0, 256, (count, 784)) / 255).tolist(),
                "y": random.integers(0, 62, count).tolist(),
            }
            for writer, count in writers.items()
        },
    }


def save(file: Path, content: Content) -> Content:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return content


def load(folder: Path, *options: tuple[str, str]) -> Data:
    return StudySource("femnist-cnn", (("data", str(folder)), *options)).load().data()


def whole(dataset: Any) -> tuple[Tensor, Tensor]:
    return fetch(dataset, torch.arange(size_of(dataset)))


@pytest.fixture
def unsplit(tmp_path: Path) -> tuple[Path, list[Content]]:
    """Two files of all data, with writers of very different diligence."""
    folder = tmp_path / "all_data"
    contents = [
        save(folder / "all_data_0.json", written({"f0001_41": 20, "f0002_07": 10, "f0003_11": 1})),
        save(folder / "all_data_1.json", written({"f3999_00": 2, "f4000_12": 40}, seed=1)),
    ]
    return tmp_path, contents


def rows(content: Content) -> list[tuple[str, int, tuple[int, ...]]]:
    """Writer, class and pixels of each sample."""
    return [
        (writer, label, tuple(round(255 * value) for value in pixels))
        for writer, samples in content["user_data"].items()
        for pixels, label in zip(samples["x"], samples["y"], strict=True)
    ]


def test_all_samples_are_read_once_with_class_and_writer(
    unsplit: tuple[Path, list[Content]],
) -> None:
    folder, contents = unsplit
    names = ["f0001_41", "f0002_07", "f0003_11", "f3999_00", "f4000_12"]  # by their numbers
    found = []
    data = load(folder)
    check_data(data, "femnist-cnn")
    for part in (data.train, data.validation, data.test):
        images, labels = whole(part)
        assert images.shape[1:] == (1, 28, 28) and images.dtype == torch.float32
        pixels = ((1 - images) * 255).round().int().flatten(1)
        for owner, label, image in zip(owners_of(part), labels, pixels, strict=True):
            found.append((names[int(owner)], int(label), tuple(image.tolist())))
    assert sorted(found) == sorted(row for content in contents for row in rows(content))


def test_a_fifth_of_each_writers_samples_is_for_testing(
    unsplit: tuple[Path, list[Content]],
) -> None:
    data = load(unsplit[0])
    assert torch.as_tensor(owners_of(data.test)).bincount().tolist() == [4, 2, 0, 0, 8]
    assert (size_of(data.train), size_of(data.validation)) == (59 - 5, 5)
    again = load(unsplit[0])
    for part in ("train", "validation", "test"):
        one, other = whole(getattr(data, part)), whole(getattr(again, part))
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("within", ["", "all_data"])
def test_files_may_lie_in_the_folder_itself(
    unsplit: tuple[Path, list[Content]], within: str
) -> None:
    data = load(unsplit[0] / within)
    assert sum(map(size_of, (data.train, data.validation, data.test))) == 73


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """LEAF's own split: of samples, with one writer who has been left out for having too few."""
    for part, count in (("train", 18), ("test", 2)):
        content = written({"f0001_41": count, "f0002_07": 2 * count}, seed=count)
        content["user_data"]["f0003_11"] = {"x": [], "y": []}
        save(tmp_path / part / f"all_data_0_keep_0_{part}_9.json", content)
    save(tmp_path / "all_data" / "all_data_0.json", written({"f0001_41": 1}))
    return tmp_path


def test_leafs_own_split_is_kept(split: Path) -> None:
    data = load(split)
    check_data(data, "femnist-cnn")
    assert size_of(data.train) + size_of(data.validation) == 54
    assert torch.as_tensor(owners_of(data.test)).tolist() == [0, 0, 1, 1, 1, 1]
    originals = json.loads((split / "test" / "all_data_0_keep_0_test_9.json").read_text())
    labels = [label for one in originals["user_data"].values() for label in one["y"]]
    assert whole(data.test)[1].tolist() == labels


def test_so_many_writers_are_taken_as_asked_for(
    unsplit: tuple[Path, list[Content]], split: Path
) -> None:
    data = load(split, ("writers", "1"))
    assert set(torch.as_tensor(owners_of(data.train)).tolist()) == {0}
    assert size_of(data.train) + size_of(data.validation) == 18
    assert size_of(data.test) == 2
    with pytest.raises(DataError, match="option writers is -1: expected 0"):
        load(split, ("writers", "-1"))


def test_validation_takes_a_tenth_of_the_training_samples_at_random(tmp_path: Path) -> None:
    save(tmp_path / "all.json", written({f"writer {number}": 50 for number in range(10)}))
    data = load(tmp_path)
    assert (size_of(data.train), size_of(data.validation), size_of(data.test)) == (360, 40, 100)
    assert len(torch.as_tensor(owners_of(data.validation)).unique()) > 5


def test_images_stay_bytes_in_memory_and_come_as_ink_on_empty_paper(split: Path) -> None:
    train = load(split).train
    pixels, _ = train.tensors  # type: ignore[attr-defined]
    assert pixels.dtype == torch.uint8
    images, labels = train[torch.tensor([3, 5])]
    assert torch.allclose(images, 1 - pixels[[3, 5]] / 255)
    image, label = train[5]
    assert torch.equal(image, images[1]) and label == labels[1]


def test_devices_can_be_writers(split: Path) -> None:
    train = load(split).train
    assert torch.equal(labels_of(train), whole(train)[1])
    shares = split_dataset(OwnersSplit(), train, ["strong", "weak"], 0)
    owners = torch.as_tensor(owners_of(train))
    assert sorted(owners[share].unique().tolist() for share in shares) == [[0], [1]]
    assert sum(len(share) for share in shares) == size_of(train)


def test_a_step_of_a_sub_network_can_be_trained(split: Path) -> None:
    study = StudySource("femnist-cnn", (("data", str(split)),)).load()
    network, data = prepare(study, seed=0)
    trainer = DropoutTrainer(
        network,
        study.optimizer(network.module.parameters()),
        study.loss,
        RandomMasks(),
        torch.Generator().manual_seed(0),
    )
    inputs, targets = fetch(data.train, torch.arange(16))
    losses = [trainer.step(inputs, targets, (16, 32, 64)) for _ in range(40)]
    assert sum(losses[-5:]) < sum(losses[:5])  # noise is learned by heart


def test_without_a_folder_or_files_an_error_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be downloaded: expected --data DIR.* preprocess.sh"):
        StudySource("femnist-cnn").load().data()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"LEAF.*preprocess.sh .*, found no \*.json"):
            load(folder)


def change(content: Content, samples: Callable[[Content], object]) -> Content:
    samples(content["user_data"]["ann"])
    return content


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: [c], "key users: expected a list, found NoneType"),
        (lambda c: c | {"users": "ann"}, "key users: expected a list, found str"),
        (lambda c: c | {"num_samples": [3, 4]}, "key num_samples: expected one for each of 1 user"),
        (lambda c: c | {"num_samples": [4]}, r"user_data/ann: expected 4 samples .* found 3"),
        (lambda c: c | {"user_data": []}, "key user_data: expected an object, found list"),
        (lambda c: c | {"user_data": {}}, "user_data/ann: expected an object with x and y"),
        (lambda c: change(c, lambda s: s.pop("y")), "user_data/ann: expected an object with x"),
        (lambda c: change(c, lambda s: s["y"].pop()), "user_data/ann/y: .* each of 3 x, found 2"),
        (lambda c: change(c, lambda s: s["y"].append("a")), "user_data/ann/y: expected a list of"),
        (lambda c: change(c, lambda s: s.update(y=[0, 1, 62])), "ann/y: .* classes 0 … 61"),
        (lambda c: change(c, lambda s: s.update(y=[0, 1, -1])), "ann/y: .* classes 0 … 61"),
        (lambda c: change(c, lambda s: s["x"][1].pop()), "user_data/ann/x: expected lists of 784"),
        (lambda c: change(c, lambda s: s["x"][0].__setitem__(5, 2.0)), r"x: .* in \[0, 1\]"),
        (lambda c: change(c, lambda s: s["x"][0].__setitem__(5, None)), r"x: .* in \[0, 1\]"),
    ],
)
def test_malformed_files_are_refused_by_file_and_key(
    tmp_path: Path, spoil: Callable[[Content], Any], message: str
) -> None:
    save(tmp_path / "all_data_7.json", spoil(written({"ann": 3})))
    with pytest.raises(DataError, match=f"FEMNIST file .*all_data_7.json.*{message}") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text('{"users": [')
    with pytest.raises(DataError, match="broken.json can't be read .*expected JSON as LEAF"):
        load(tmp_path)


def kept_files(cache: Path) -> list[Path]:
    """What is kept of parsed files; nothing else may lie beside it."""
    found = sorted(path for path in cache.rglob("*") if path.is_file())
    assert all(path.parent == cache / "distreal-dse" / "parsed" for path in found)
    assert all(path.suffix == ".npz" for path in found)
    return found


def refuse(*arguments: object, **options: object) -> None:
    raise AssertionError("it was parsed again")


def same(one: Data, other: Data) -> bool:
    return all(
        torch.equal(mine, its)
        for part in ("train", "validation", "test")
        for mine, its in zip(
            (*whole(getattr(one, part)), torch.as_tensor(owners_of(getattr(one, part)))),
            (*whole(getattr(other, part)), torch.as_tensor(owners_of(getattr(other, part)))),
            strict=True,
        )
    )


def test_files_are_parsed_once_and_the_data_is_the_same(
    unsplit: tuple[Path, list[Content]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = unsplit
    first, few = load(folder), load(folder, ("writers", "2"))
    assert len(kept_files(cache)) == 2
    monkeypatch.setattr(json, "load", refuse)
    assert same(load(folder), first) and same(load(folder, ("writers", "2")), few)
    monkeypatch.chdir(folder)
    assert same(load(Path("all_data")), first)  # the same files by another path


def test_a_file_of_another_size_is_parsed_again(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "all.json"
    save(file, written({"ann": 20}))
    before, stat = load(tmp_path), file.stat()
    save(file, written({"ann": 21}))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not same(load(tmp_path), before)
    assert len(kept_files(cache)) == 1


def test_a_file_that_was_changed_at_another_time_is_parsed_again(
    tmp_path: Path, cache: Path
) -> None:
    file = tmp_path / "all.json"
    content = save(file, written({"ann": 20}))
    before, stat = load(tmp_path), file.stat()
    content["user_data"]["ann"]["y"].reverse()
    save(file, content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file.stat().st_size == stat.st_size
    assert not same(load(tmp_path), before)
    assert len(kept_files(cache)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not an archive",
        lambda content: content[: len(content) // 2],
        lambda content: content[:900] + bytes(255 - byte for byte in content[900:950])
        + content[950:],
    ],
    ids=["empty", "other", "cut", "flipped"],
)  # fmt: skip
def test_what_is_kept_is_made_anew_where_it_is_damaged(
    split: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    first = load(split)
    contents = [path.read_bytes() for path in kept_files(cache)]
    for path, content in zip(kept_files(cache), contents, strict=True):
        path.write_bytes(damage(content))
    assert same(load(split), first)
    monkeypatch.setattr(json, "load", refuse)
    assert same(load(split), first)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_what_is_kept_is_never_unpickled(split: Path, cache: Path, tmp_path: Path) -> None:
    first, trap = load(split), tmp_path / "trap"
    for path in kept_files(cache):
        content = dict(np.load(path))
        np.savez(path, **content | {"stamp": np.array(Payload(trap), object)})
    assert same(load(split), first)
    assert not trap.exists()


@pytest.mark.parametrize("reason", ["a file", "no room", "no home"])
def test_without_a_cache_directory_the_files_are_just_parsed(
    split: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    first = load(split)
    for path in kept_files(cache):
        path.unlink()
    if reason == "a file":
        (cache / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    elif reason == "no room":

        def full(file: Any, **arrays: object) -> None:
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(np, "savez_compressed", full)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "a relative path")  # which is not taken

        def no_home() -> Path:
            raise RuntimeError("could not determine home directory")

        monkeypatch.setattr(Path, "home", no_home)
    assert same(load(split), first)
    (cache / "file").unlink(missing_ok=True)
    assert not kept_files(cache)
