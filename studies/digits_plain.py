"""Handwritten digits with a network that normalises nothing, so that no statistics are needed."""

from collections import OrderedDict

from torch import nn

from distreal_dse import ShortRun, Study
from studies.digits_cnn import data, five_convolutions


def block(inputs: int, outputs: int) -> nn.Sequential:
    """3×3 convolution with a bias, ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    # Without normalisation, PyTorch's initial weights let signals fade from layer to layer.
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(OrderedDict(conv=convolution, relu=nn.ReLU()))


def model() -> nn.Module:
    """The convolutions of ``digits-cnn`` without normalisation, 36 k parameters."""
    return five_convolutions(block)


study = Study(
    model=model,
    data=data,
    batch_size=32,
    input_shape=(1, 8, 8),
    short_run=ShortRun(warm_up=20, mini_batches=40, replicates=4),
    description="5-layer CNN without normalisation on scikit-learn's 8×8 digits; no download",
)
