from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from distreal_dse.data.batches import check_data, fetch, size_of
from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import DataError
from distreal_dse.study.catalogue import StudySource, shipped_studies
from distreal_dse.support.compat import torchvision

# Per parameter tensor: ResNet-20 with projections has 272,474 (He et al., table 6: 0.27 M), and
# DenseNet-40 with growth 12 has 1,019,722 (Huang et al., table 2: 1.0 M).
PARAMETERS = {
    "digits-cnn": 36_000,
    "digits-plain": 36_000,
    "cifar10-cnn": 9 * (3 * 32 + 32**2 + 32 * 64 + 64**2 + 64 * 128 + 128**2) + 896 + 1290,
    "cifar10-resnet20": 272_474,
    "cifar10-densenet40": 1_019_722,
    "cifar100-resnet20": 272_474 + 90 * (64 + 1),
    "femnist-cnn": 800 + 51_200 + 73_728 + 2 * (32 + 64 + 128) + 62 * (1152 + 1),
}
CLASSES = {"cifar100-resnet20": 100, "femnist-cnn": 62}


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_can_be_traced_and_has_the_expected_size(name: str) -> None:
    study = StudySource(name).load()
    assert study.name == name
    assert study.description
    module = study.model()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    assert parameters == pytest.approx(PARAMETERS[name], rel=0.02)
    assert study.input_shape is not None
    inputs = torch.randn(2, *study.input_shape)
    network = DroppableNetwork(module, inputs)
    assert module(inputs).shape == (2, CLASSES.get(name, 10))
    # Every convolution's filters can be dropped.
    convolutions = [
        part for part, layer in module.named_modules() if isinstance(layer, torch.nn.Conv2d)
    ]
    dropped = {layer for group in network.groups for layer in group.layers}
    assert dropped == set(convolutions)


def digits() -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    data = StudySource("digits-cnn").load().data()
    parts = [fetch(part, torch.arange(size_of(part))) for part in
             (data.train, data.validation, data.test)]  # fmt: skip
    images = [images for images, _ in parts]
    return images[0], images[1], images[2], [labels for _, labels in parts]


def test_digits_are_split_60_20_20_by_class() -> None:
    train, validation, test, labels = digits()
    assert (len(train), len(validation), len(test)) == (1077, 360, 360)
    counts = torch.stack([torch.bincount(part, minlength=10) for part in labels]).double()
    shares = counts / counts.sum(0)
    assert torch.allclose(shares, torch.tensor([[0.6], [0.2], [0.2]]).double(), atol=0.02)


def test_digits_parts_have_no_image_in_common() -> None:
    from sklearn.datasets import load_digits

    originals, _ = load_digits(return_X_y=True)
    *parts, _ = digits()
    found = [
        tuple(image.flatten().mul(16).add(4.8).round().int().tolist())
        for part in parts
        for image in part
    ]
    assert sorted(found) == sorted(tuple(int(v) for v in image) for image in originals)


def test_digits_are_split_the_same_way_each_time() -> None:
    assert all(
        torch.equal(one, other) for one, other in zip(digits()[:3], digits()[:3], strict=True)
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of plain grey images, 20 each for training and 10 each for testing."""
    root = tmp_path_factory.mktemp("cifar")
    for part, count in (("train", 20), ("test", 10)):
        for number, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                grey = 10 * index + number
                Image.new("RGB", (32, 32), (grey, grey, grey)).save(folder / f"{index}.png")
    return root


def cifar(
    folder: Path, subset: str = "0", name: str = "cifar10-resnet20"
) -> tuple[tuple[Tensor, Tensor], ...]:
    options = (("data", str(folder)), ("subset", subset))
    data = StudySource(name, options).load().data()
    check_data(data, name)
    return tuple(
        fetch(part, torch.arange(size_of(part)))
        for part in (data.train, data.validation, data.test)
    )


def test_class_folders_are_read_and_a_tenth_is_set_aside(folders: Path) -> None:
    (train, train_labels), (validation, validation_labels), (test, test_labels) = cifar(folders)
    assert train.shape == (36, 3, 32, 32)
    assert validation.shape == (4, 3, 32, 32)
    assert test.shape == (20, 3, 32, 32)
    assert train_labels.bincount().tolist() == [18, 18]
    assert validation_labels.bincount().tolist() == [2, 2]
    assert test_labels.bincount().tolist() == [10, 10]


@pytest.mark.parametrize(
    ("name", "means", "stds"),
    [
        ("cifar10-resnet20", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100-resnet20", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    ],
)
def test_images_are_normalised_per_channel(
    folders: Path, name: str, means: tuple[float, ...], stds: tuple[float, ...]
) -> None:
    # A cat's grey is 0, 10, 20 …, a dog's 1, 11, 21 …
    for images, labels in cifar(folders, name=name):
        for channel, (mean, std) in enumerate(zip(means, stds, strict=True)):
            greys = (images[:, channel] * std + mean) * 255
            assert torch.allclose(greys, greys.round(), atol=1e-3)
            assert torch.equal(greys[:, 0, 0].round().long() % 10, labels)
    train, validation, _ = cifar(folders)
    pixels = torch.cat([train[0], validation[0]])[:, 0, 0, 0]
    assert len(pixels.unique()) == 40  # each training image in one part


def test_the_options_choose_a_subset_with_a_fifth_as_many_test_images(folders: Path) -> None:
    (train, _), (validation, _), (test, _) = cifar(folders, subset="30")
    assert (len(train), len(validation), len(test)) == (27, 3, 6)


@pytest.mark.parametrize("size", [16, 8])
def test_images_can_be_made_smaller_by_means_of_their_pixels(folders: Path, size: int) -> None:
    options = (("data", str(folders)), ("size", str(size)))
    study = StudySource("cifar10-cnn", options).load()
    images, labels = fetch(study.data().train, torch.arange(36))
    assert study.input_shape == images.shape[1:] == (3, size, size)
    full, same_labels = cifar(folders)[0]
    assert torch.equal(labels, same_labels)
    # The images are plain, and so are means of their pixels.
    torch.testing.assert_close(images, full[:, :, :size, :size])


def test_other_sizes_are_refused(folders: Path) -> None:
    options = (("data", str(folders)), ("size", "12"))
    with pytest.raises(DataError, match="option size is 12: expected 32, 16, 8"):
        StudySource("cifar10-cnn", options).load().data()


def test_single_samples_equal_those_of_a_batch(folders: Path) -> None:
    options = (("data", str(folders)),)
    train = StudySource("cifar10-densenet40", options).load().data().train
    images, labels = train[torch.arange(3)]
    for index in range(3):
        image, label = train[index]
        assert torch.equal(image, images[index])
        assert label == labels[index]


@pytest.mark.parametrize("name", ["CIFAR-10", "CIFAR-100"])
def test_a_missing_data_folder_is_refused(tmp_path: Path, name: str) -> None:
    study = name.lower().replace("-", "") + "-resnet20"
    source = StudySource(study, (("data", str(tmp_path / "nowhere")),))
    with pytest.raises(DataError, match=f"nowhere does not exist: expected {name} or a place"):
        source.load().data()


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_what_torchvision_downloads_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def downloaded(root: str, train: bool, download: bool) -> Any:
        assert root == str(tmp_path) and download
        size = 40 if train else 10
        return torchvision.datasets.FakeData(size, (3, 32, 32), 2)

    monkeypatch.setattr(torchvision.datasets, name, downloaded)
    (train, _), (validation, _), (test, _) = cifar(tmp_path, name=f"{name.lower()}-resnet20")
    assert (len(train), len(validation), len(test)) == (36, 4, 10)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_failed_download_says_what_else_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, name, unreachable)
    with pytest.raises(DataError, match=r"CIFAR-10+ can't be downloaded .*no network.*--data DIR"):
        cifar(tmp_path, name=f"{name.lower()}-resnet20")


def test_class_folders_without_test_images_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "cat"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(folder / "0.png")
    source = StudySource("cifar10-resnet20", (("data", str(tmp_path)),))
    with pytest.raises(DataError, match="test"):
        source.load().data()
