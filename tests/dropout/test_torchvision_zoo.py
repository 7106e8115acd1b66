"""Networks of torchvision: what users bring first."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from distreal_dse.compat import torchvision
from distreal_dse.dropout import DropoutTrainer, DroppableNetwork, RandomMasks, kept_counts
from distreal_dse.errors import UnsupportedModelError
from distreal_dse.seeding import seeded

# Number of groups. A sequential network has one per convolution: VGG-11 8, DenseNet-121 1 + 2 · 58
# + 3. ResNet-50 has 53 convolutions: 2 inner ones in each of 16 blocks, and 5 trunks (stem, and one
# per stage). ResNet-18: 1 inner in each of 8 blocks, and 4 trunks (the stem is that of stage 1).
GROUPS = {
    "resnet18": 8 + 4,
    "vgg11_bn": 8,
    "mobilenet_v2": None,
    "densenet121": 1 + 2 * 58 + 3,
    "squeezenet1_1": 1 + 3 * 8,  # the last convolution gives the output
    "googlenet": 3 + 6 * 9,  # each inception block has four branches of 1 + 2 + 2 + 1
    "regnet_y_400mf": None,
    "resnext50_32x4d": 32 + 5,
    "resnet50": 32 + 5,
    "mobilenet_v3_small": None,
}


def build(name: str) -> nn.Module:
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    if name == "vgg11_bn":
        options = {"init_weights": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = torchvision.models.get_model(name, num_classes=10, **options)
    return model


@pytest.mark.parametrize("name", GROUPS)
def test_filters_of_torchvision_networks_can_be_dropped(name: str) -> None:
    model = build(name)
    if name == "vgg11_bn":  # 100 million weights that make no difference here
        head = [nn.Linear(512 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10)]
        model.classifier = nn.Sequential(*head)
    network = DroppableNetwork(model, torch.randn(2, 3, 64, 64))  # checks itself numerically
    if GROUPS[name] is not None:
        assert len(network.groups) == GROUPS[name]
    convolutions = {name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)}
    tied = [layer for group in network.groups for layer in group.layers]
    assert set(tied) <= convolutions
    assert all(width > 1 for width in network.full_counts)


@pytest.mark.parametrize(
    ("name", "operation"),
    [("shufflenet_v2_x0_5", "stage2.0"), ("convnext_tiny", "features.0.1")],
)
def test_networks_that_mix_channels_are_refused_by_name_of_the_block(
    name: str, operation: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=operation.replace(".", r"\.")):
        DroppableNetwork(build(name), torch.randn(2, 3, 64, 64))


def test_dropped_filters_of_resnet18_are_left_as_they_were() -> None:
    with seeded(0):
        model = build("resnet18")
        inputs, targets = torch.randn(4, 3, 64, 64), torch.randint(10, (4,))
    network = DroppableNetwork(model, inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    masks = torch.Generator().manual_seed(0)
    trainer = DropoutTrainer(network, optimizer, nn.functional.cross_entropy, RandomMasks(), masks)
    counts = kept_counts([0.5] * len(network.groups), network.groups)
    before = copy.deepcopy(model.state_dict())
    trainer.step(inputs, targets, counts)
    after = model.state_dict()
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            moved = (after[f"{name}.weight"] != before[f"{name}.weight"]).flatten(2).any(2)
            filters, inputs = moved.any(1), moved.any(0)
            assert int(filters.sum()) == part.out_channels // 2, name
            assert int(inputs.sum()) == (part.in_channels // 2 if name != "conv1" else 3), name
            # What was trained is a full rectangle of kept filters and kept inputs.
            assert torch.equal(moved, filters[:, None] & inputs), name
        elif isinstance(part, nn.BatchNorm2d):
            for tensor in ("weight", "running_mean", "running_var"):
                moved = after[f"{name}.{tensor}"] != before[f"{name}.{tensor}"]
                assert int(moved.sum()) == part.num_features // 2, f"{name}.{tensor}"
