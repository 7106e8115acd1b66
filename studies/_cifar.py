"""CIFAR-10 and CIFAR-100: downloaded by torchvision, or read from class folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from distreal_dse import Data
from distreal_dse.errors import DataError
from distreal_dse.support.compat import torchvision

VALIDATION_SHARE = 0.1
SMALLEST_SUBSET = 5  # so that there is a test image
SIZE, SIZES = 32, (32, 16, 8)


@dataclass(frozen=True)
class Cifar:
    """One of the data sets, with mean and deviation of its training pixels in [0, 1] by channel."""

    name: str
    torchvision: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10 = Cifar("CIFAR-10", "CIFAR10", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = Cifar("CIFAR-100", "CIFAR100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


class Images(TensorDataset):
    """Images kept as bytes in memory and normalised when they are taken."""

    def __init__(self, cifar: Cifar, pixels: Tensor, labels: Tensor) -> None:
        super().__init__(pixels, labels)
        self.mean = torch.tensor(cifar.mean).view(3, 1, 1)
        self.std = torch.tensor(cifar.std).view(3, 1, 1)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        """Image(s) as floats, shape [..., 3, 32, 32], and class index(es)."""
        pixels, labels = (tensor[index] for tensor in self.tensors)
        return (pixels.float() / 255 - self.mean) / self.std, labels


def load(cifar: Cifar, data: Path | None, subset: int, size: int = SIZE) -> Data:
    """Load CIFAR-10 or CIFAR-100.

    Parameters
    ----------
    cifar
        Which of them.
    data
        A folder with class folders in ``train/`` and ``test/``, or where torchvision keeps its
        download; ``~/.cache/distreal-dse`` by default.
    subset
        How many of the training images to use, 5 or more, with a fifth as many test images;
        0 for all.
        A tenth of the training images is set aside for validation.
    size
        Width and height of images; 32, or 16 or 8, whose pixels are means of the original ones.
    """
    if size not in SIZES:
        raise DataError(f"option size is {size}: expected {', '.join(map(str, SIZES))}")
    if subset != 0 and subset < SMALLEST_SUBSET:
        raise DataError(f"option subset is {subset}: expected 0 (all) or {SMALLEST_SUBSET} or more")
    if data is not None and not data.is_dir():
        raise DataError(
            f"data folder {data} does not exist: expected {cifar.name} or a place for it"
        )
    folders = data is not None and (data / "train").is_dir()
    parts = []
    for part, count in (("train", subset), ("test", subset // 5)):
        if folders:
            assert data is not None
            try:
                images = torchvision.datasets.ImageFolder(str(data / part))
            except FileNotFoundError as error:
                raise DataError(
                    f"data folder {data / part}: expected a folder for each class ({error})"
                ) from error
        else:
            root = data or Path.home() / ".cache" / "distreal-dse"
            training = part == "train"
            try:
                download = getattr(torchvision.datasets, cifar.torchvision)
                images = download(str(root), train=training, download=True)
            except (OSError, RuntimeError) as error:
                raise DataError(
                    f"{cifar.name} can't be downloaded to {root} ({error}): give --data DIR with "
                    "its class folders in train/ and test/"
                ) from error
        parts.append(_tensors(images, count, size))
    (pixels, labels), test = parts
    try:
        train, validation = train_test_split(
            torch.arange(len(labels)), test_size=VALIDATION_SHARE, random_state=0, stratify=labels
        )
    except ValueError as error:
        raise DataError(
            f"{len(labels)} training images can't be split ({error}): expected enough for a "
            f"validation share of {VALIDATION_SHARE:.0%} with every class; use a larger subset"
        ) from error
    return Data(
        train=Images(cifar, pixels[train], labels[train]),
        validation=Images(cifar, pixels[validation], labels[validation]),
        test=Images(cifar, *test),
    )


def _tensors(images: Any, count: int, size: int) -> tuple[Tensor, Tensor]:
    """``count`` images (0: all), drawn with a fixed seed, as bytes [n, 3, size, size]; labels."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    chosen = chosen[: count or None]
    to_bytes = torchvision.transforms.functional.pil_to_tensor
    pairs = [images[index] for index in chosen]
    pixels = torch.stack([to_bytes(image) for image, _ in pairs])
    if size != SIZE:
        pixels = functional.avg_pool2d(pixels.float(), SIZE // size).round().to(torch.uint8)
    return pixels, torch.tensor([label for _, label in pairs])
