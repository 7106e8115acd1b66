"""Networks in which filters can't be dropped are refused by name of the layer and reason."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from distreal_dse.dropout import DroppableNetwork
from distreal_dse.errors import InputError, UnsupportedModelError
from networks import CLASSES, inputs_of


class Base(nn.Module):
    """`first` (8 filters) and `second` (8 filters); what happens in between is varied."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, CLASSES)

    def between(self, maps: Tensor) -> Tensor:
        return maps

    def forward(self, inputs: Tensor) -> Tensor:
        maps = torch.relu(self.second(self.between(torch.relu(self.first(inputs)))))
        outputs: Tensor = self.head(maps.mean((2, 3)))
        return outputs


def refusal_of(module: nn.Module, example: Tensor | None = None) -> str:
    with pytest.raises(UnsupportedModelError) as refused:
        DroppableNetwork(module, inputs_of().float() if example is None else example)
    return str(refused.value)


def test_base_itself_is_supported() -> None:
    network = DroppableNetwork(Base(), inputs_of().float())
    assert [group.name for group in network.groups] == ["first", "second"]


def test_control_flow_on_tensor_values_is_refused() -> None:
    class Branches(Base):
        def between(self, maps: Tensor) -> Tensor:
            return maps if maps.sum() > 0 else -maps

    message = refusal_of(Branches())
    assert "Branches" in message and "control flow" in message


class HardCodedView(nn.Module):
    """8 filters × 8 × 8 positions = 512."""

    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(512, CLASSES)
        self.flatten = flatten

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.flatten(torch.relu(self.conv(inputs))))
        return outputs


def test_hard_coded_size_is_refused_with_what_to_write_instead() -> None:
    message = refusal_of(HardCodedView(lambda maps: maps.view(-1, 512)))
    assert "view()" in message and "512" in message and "flatten" in message


@pytest.mark.parametrize(
    "flatten",
    [
        lambda maps: maps.view((-1, 512)),
        lambda maps: torch.reshape(maps, (-1, 512)),
        lambda maps: maps.reshape(maps.size(0), 512),
    ],
    ids=["tuple", "function", "reshape"],
)
def test_hard_coded_size_is_refused_however_it_is_written(
    flatten: Callable[[Tensor], Tensor],
) -> None:
    assert "hard-coded" in refusal_of(HardCodedView(flatten))


@pytest.mark.parametrize(
    "flatten",
    [
        lambda maps: maps.view(maps.size(0), -1),
        lambda maps: maps.view(maps.shape[0], -1),
        lambda maps: maps.reshape(len(inputs_of()), -1),
        lambda maps: torch.flatten(maps, 1),
        lambda maps: maps.flatten(start_dim=1),
    ],
    ids=["size", "shape", "batch", "function", "method"],
)
def test_size_that_follows_the_filters_is_accepted(flatten: Callable[[Tensor], Tensor]) -> None:
    DroppableNetwork(HardCodedView(flatten), inputs_of().float())


def test_layer_called_twice_is_refused_by_name() -> None:
    class Recurrent(Base):
        def between(self, maps: Tensor) -> Tensor:
            again: Tensor = self.second(maps)
            return again

    assert "layer second" in refusal_of(Recurrent())


def test_layer_under_two_names_is_refused() -> None:
    class Aliased(Base):
        def __init__(self) -> None:
            super().__init__()
            self.alias = self.second

        def between(self, maps: Tensor) -> Tensor:
            again: Tensor = self.alias(maps)
            return again

    assert "second" in refusal_of(Aliased())


def test_tied_parameters_are_refused_by_their_names() -> None:
    class Tied(Base):
        def __init__(self) -> None:
            super().__init__()
            self.third = nn.Conv2d(8, 8, 3, padding=1)
            self.third.weight = self.second.weight

        def between(self, maps: Tensor) -> Tensor:
            again: Tensor = self.third(maps)
            return again

    message = refusal_of(Tied())
    assert "second.weight" in message and "third.weight" in message


UNKNOWN_OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda maps: maps.softmax(1),
    "getitem": lambda maps: maps[:, torch.arange(7, -1, -1)],
    "mean": lambda maps: maps - maps.mean(1, keepdim=True),
    "sum": lambda maps: maps + maps.sum((1, 2, 3), keepdim=True),
    "amax": lambda maps: maps + maps.amax(1, keepdim=True),
    "flip": lambda maps: torch.flip(maps, [1]),
    "cumsum": lambda maps: maps.cumsum(1),
    "roll": lambda maps: maps.roll(1, 1),
    "repeat": lambda maps: maps.repeat(1, 2, 1, 1)[:, :8],
    "squeeze": lambda maps: maps.squeeze(),
    "mul": lambda maps: maps * maps.transpose(1, 2),
    "avg_pool2d": lambda maps: functional.avg_pool2d(maps.permute(0, 2, 3, 1), 1).permute(
        0, 3, 1, 2
    ),
    "pad": lambda maps: functional.pad(maps, (0, 0, 0, 0, 1, 1))[:, 1:-1],
}


@pytest.mark.parametrize("operation", UNKNOWN_OPERATIONS)
def test_operation_that_mixes_channels_is_refused_by_its_name(operation: str) -> None:
    class Mixing(Base):
        def between(self, maps: Tensor) -> Tensor:
            return UNKNOWN_OPERATIONS[operation](maps)

    assert f"{operation}()" in refusal_of(Mixing())


def test_message_names_the_block_that_an_operation_is_in() -> None:
    class Reverse(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return maps.flip(1)

    class Reversed(Base):
        def __init__(self) -> None:
            super().__init__()
            self.order = nn.Sequential(nn.ReLU(), Reverse())

        def between(self, maps: Tensor) -> Tensor:
            reversed_: Tensor = self.order(maps)
            return reversed_

    assert "flip() in order.1" in refusal_of(Reversed())


@pytest.mark.parametrize(
    "between",
    [
        lambda maps: maps.transpose(1, 2),
        lambda maps: maps.permute(0, 3, 2, 1),
        lambda maps: maps.swapaxes(1, 3).relu(),
    ],
    ids=["transpose", "permute", "swapaxes"],
)
def test_layer_whose_channels_lie_along_another_axis_is_refused_by_its_name(
    between: Callable[[Tensor], Tensor],
) -> None:
    class Moved(Base):
        def between(self, maps: Tensor) -> Tensor:
            return between(maps)

    message = refusal_of(Moved())
    assert "layer second" in message and "axis 1" in message


# Operations that order or split channels by their count: right for all of them only.
BY_COUNT: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda maps: maps.view(len(inputs_of()), 2, 4, 8, 8).sum(1).repeat(1, 2, 1, 1),
    "unflatten": lambda maps: maps.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2),
    "chunk": lambda maps: torch.cat(maps.chunk(2, 1)[::-1], 1),
    "split": lambda maps: torch.cat([maps.split(4, 1)[1], maps.split(4, 1)[0]], 1),
    "unbind": lambda maps: torch.stack(maps.unbind(1)[::-1], 1),
    "slice": lambda maps: torch.cat([maps[:, 4:], maps[:, :4]], 1),
    "one": lambda maps: maps * maps[:, :1],
    "channel_shuffle": lambda maps: functional.channel_shuffle(maps, 2),
    "pixel_shuffle": lambda maps: functional.pixel_unshuffle(functional.pixel_shuffle(maps, 2), 2),
}


@pytest.mark.parametrize("operation", BY_COUNT)
def test_channels_that_are_split_or_ordered_by_count_stay_whole(operation: str) -> None:
    class Counting(Base):
        def between(self, maps: Tensor) -> Tensor:
            return BY_COUNT[operation](maps)

    network = DroppableNetwork(Counting(), inputs_of().float())
    assert [group.name for group in network.groups] == ["second"]


def test_network_whose_channels_are_all_split_by_count_is_refused() -> None:
    class Halves(Base):
        def forward(self, inputs: Tensor) -> Tensor:
            maps = torch.cat(torch.relu(self.first(inputs)).chunk(2, 1), 1)
            left, right = self.second(maps).chunk(2, 1)
            outputs: Tensor = self.head(torch.cat([left, right], 1).mean((2, 3)))
            return outputs

    message = refusal_of(Halves())
    assert "Halves" in message and "no filters" in message and "split by count" in message


# Operations on the positions of each channel.
ON_POSITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda maps: maps.transpose(2, 3),
    "permute": lambda maps: maps.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
    "movedim": lambda maps: torch.movedim(maps, 1, -1).movedim(-1, 1),
    "cat": lambda maps: torch.cat([maps, maps.neg()], 2),
    "stack": lambda maps: torch.stack([maps, 2 * maps], 2).amax(2),
    "chunk": lambda maps: torch.cat(maps.chunk(2, 3)[::-1], 3),
    "unbind": lambda maps: torch.stack(maps.unbind(2)[::-1], 2),
    "slice": lambda maps: maps[..., 1:, ::2],
    "none": lambda maps: maps[:, :, None].squeeze(2),
    "unsqueeze": lambda maps: maps.unsqueeze(1).squeeze(1),
    "flatten": lambda maps: maps.flatten(2).unflatten(2, (4, 16)),
    "view": lambda maps: maps.view(maps.size(0), -1, 16, 4),
    "pad": lambda maps: functional.pad(maps, (1, 2)),
    "max_pool2d": lambda maps: functional.max_pool2d(maps, 2),
    "lp_pool2d": lambda maps: functional.lp_pool2d(maps, 2, 2),
    "interpolate": lambda maps: functional.interpolate(maps, scale_factor=2),
    "row weights": lambda maps: maps * torch.linspace(0, 1, 8),
    "logsigmoid": lambda maps: functional.logsigmoid(maps),
    "softsign": lambda maps: functional.softsign(maps),
    "tanhshrink": lambda maps: functional.tanhshrink(maps),
    "threshold": lambda maps: functional.threshold(maps, 0.1, 0.2),
    "hardswish": lambda maps: functional.hardswish(maps),
    "square": lambda maps: maps**2,
}


@pytest.mark.parametrize("operation", ON_POSITIONS)
def test_channels_go_through_operations_on_their_positions(operation: str) -> None:
    class Positions(Base):
        def between(self, maps: Tensor) -> Tensor:
            return ON_POSITIONS[operation](maps)

    network = DroppableNetwork(Positions(), inputs_of().float())
    assert [group.name for group in network.groups] == ["first", "second"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.LayerNorm([8, 8, 8]),
        nn.ConvTranspose2d(8, 8, 1),
        nn.Softmax2d(),
        nn.LocalResponseNorm(3),
        nn.Linear(8, 8),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_that_mixes_channels_is_refused_by_its_name(layer: nn.Module) -> None:
    class Mixing(Base):
        def __init__(self) -> None:
            super().__init__()
            self.unusual = layer

        def between(self, maps: Tensor) -> Tensor:
            mixed: Tensor = self.unusual(maps)
            return mixed

    assert "layer unusual" in refusal_of(Mixing())


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(nn.ConvTranspose2d(8, 8, 1), "transposed"), (nn.LocalResponseNorm(3), "neighbouring")],
    ids=["transposed", "local response"],
)
def test_reason_is_given_where_more_is_known(layer: nn.Module, reason: str) -> None:
    class Unusual(Base):
        def __init__(self) -> None:
            super().__init__()
            self.unusual = layer

        def between(self, maps: Tensor) -> Tensor:
            through: Tensor = self.unusual(maps)
            return through

    message = refusal_of(Unusual())
    assert "layer unusual" in message and reason in message


@pytest.mark.parametrize(
    "layer",
    [
        nn.LogSigmoid(), nn.Threshold(0.1, 0.2), nn.Softsign(), nn.Tanhshrink(), nn.Hardshrink(),
        nn.LPPool2d(2, 2), nn.ReflectionPad2d(1), nn.ChannelShuffle(2), nn.PReLU(), nn.PReLU(8),
        nn.GroupNorm(2, 8), nn.GroupNorm(4, 8), nn.GroupNorm(8, 8), nn.InstanceNorm2d(8),
        nn.InstanceNorm2d(8, affine=True), nn.LayerNorm(8), nn.LayerNorm([8, 8]), nn.AvgPool2d(2),
    ],
    ids=repr,
)  # fmt: skip
def test_layers_that_keep_channels_apart_or_together_are_supported(layer: nn.Module) -> None:
    class Usual(Base):
        def __init__(self) -> None:
            super().__init__()
            self.usual = layer

        def between(self, maps: Tensor) -> Tensor:
            through: Tensor = self.usual(maps)
            return through

    names = [group.name for group in DroppableNetwork(Usual(), inputs_of().float()).groups]
    assert names == (["second"] if isinstance(layer, nn.ChannelShuffle) else ["first", "second"])


def test_subclass_that_changes_a_norm_is_refused() -> None:
    class Doubled(nn.LayerNorm):
        def forward(self, input: Tensor) -> Tensor:
            moved = super().forward(input.movedim(1, -1)).movedim(-1, 1)
            return moved * 2

    class Unusual(Base):
        def __init__(self) -> None:
            super().__init__()
            self.norm = Doubled(8)

        def between(self, maps: Tensor) -> Tensor:
            through: Tensor = self.norm(maps)
            return through

    assert "Unusual" in refusal_of(Unusual())


def test_fault_behind_a_scale_of_zero_is_found() -> None:
    class SumsUp(nn.LayerNorm):
        """Not a normalisation at all."""

        def forward(self, input: Tensor) -> Tensor:
            return input + input.sum(1, keepdim=True)

    class Hidden(Base):
        def __init__(self) -> None:
            super().__init__()
            self.norm = SumsUp(8)
            self.scale = nn.Parameter(torch.zeros(8, 1, 1))

        def between(self, maps: Tensor) -> Tensor:
            return maps + self.scale * self.norm(maps)

    assert "dropping filters does not equal zeroing" in refusal_of(Hidden())


def test_operation_with_several_results_is_refused_by_its_name() -> None:
    class Several(Base):
        def between(self, maps: Tensor) -> Tensor:
            return maps + maps.max(1, keepdim=True)[0]

    assert "max()" in refusal_of(Several())


def test_parametrised_layer_is_refused_by_its_name() -> None:
    class WeightNormalised(Base):
        def __init__(self) -> None:
            super().__init__()
            self.second = torch.nn.utils.parametrizations.weight_norm(self.second)

    assert "second" in refusal_of(WeightNormalised())


def test_unknown_operations_behind_the_last_filters_are_accepted() -> None:
    class Behind(Base):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs).softmax(1).cumsum(1).flip(1)

    DroppableNetwork(Behind(), inputs_of().float())


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8), nn.ReLU(), nn.Linear(8, 5)),
        lambda: nn.Sequential(nn.Conv2d(3, CLASSES, 8), nn.Flatten()),
    ],
    ids=["linear", "output"],
)
def test_model_without_droppable_filters_is_refused(make: Callable[[], nn.Module]) -> None:
    message = refusal_of(make())
    assert "Sequential" in message and "no filters" in message


def test_model_that_fails_on_the_example_is_refused_with_its_shape_and_the_reason() -> None:
    message = refusal_of(Base(), torch.randn(2, 4, 8, 8))
    assert "Base" in message and "(2, 4, 8, 8)" in message and "4 channels" in message
    assert "\n" not in message


def test_refusal_of_an_example_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    refusal_of(Base(), torch.randn(2, 4, 8, 8))
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_refusals_are_input_errors() -> None:
    assert issubclass(UnsupportedModelError, InputError) and UnsupportedModelError.exit_code == 2


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_wiring_of_both_modes_is_checked(mode: bool) -> None:
    class InOneMode(Base):
        def between(self, maps: Tensor) -> Tensor:
            return maps.flip(1) if self.training == mode else maps

    message = refusal_of(InOneMode())
    assert ("flip()" if mode else "InOneMode") in message
    assert ("in evaluation mode" in message) != mode


def test_auxiliary_head_of_the_training_mode_is_followed() -> None:
    class Auxiliary(Base):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(8, 6, 1)
            self.side_head = nn.Linear(6, CLASSES)

        def forward(self, inputs: Tensor) -> Any:
            maps = torch.relu(self.first(inputs))
            outputs = self.head(torch.relu(self.second(maps)).mean((2, 3)))
            if not self.training:
                return outputs
            return outputs, self.side_head(torch.relu(self.side(maps)).mean((2, 3)))

    network = DroppableNetwork(Auxiliary(), inputs_of().float())
    assert [group.name for group in network.groups] == ["first", "second", "side"]


def test_several_outputs_are_supported() -> None:
    class TwoHeads(Base):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(8, 2)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            maps = self.second(self.first(inputs)).mean((2, 3))
            return self.head(maps), self.other(maps)

    assert len(DroppableNetwork(TwoHeads(), inputs_of().float()).groups) == 2


def test_outputs_by_name_are_supported_or_refused() -> None:
    class Named(Base):
        def forward(self, inputs: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"logits": super().forward(inputs)}

    try:
        network = DroppableNetwork(Named(), inputs_of().float())
    except UnsupportedModelError as error:
        assert "Named" in str(error)
    else:
        assert len(network.groups) == 2


@pytest.mark.parametrize(
    "dropout",
    [
        lambda maps, training: functional.dropout(maps, 0.5, training),
        lambda maps, training: functional.dropout2d(maps, 0.5, training),
    ],
    ids=["dropout", "dropout2d"],
)
def test_ordinary_dropout_as_a_function_is_supported(
    dropout: Callable[[Tensor, bool], Tensor],
) -> None:
    class DropsOut(Base):
        def between(self, maps: Tensor) -> Tensor:
            return dropout(maps, self.training)

    assert len(DroppableNetwork(DropsOut(), inputs_of().float()).groups) == 2


@pytest.mark.parametrize(
    "layer", [nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()], ids=lambda layer: repr(layer)
)
def test_ordinary_dropout_layers_are_supported(layer: nn.Module) -> None:
    class DropsOut(Base):
        def __init__(self) -> None:
            super().__init__()
            self.regular = layer

        def between(self, maps: Tensor) -> Tensor:
            dropped: Tensor = self.regular(maps)
            return dropped

    assert len(DroppableNetwork(DropsOut(), inputs_of().float()).groups) == 2


# --- Models that can't be copied, have no weights, or return what can't be compared ---------------


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("lock", threading.Lock()),
        ("remembered", nn.Linear(1, 1)(torch.ones(1))),
        ("rows", (number for number in range(3))),
    ],
)
def test_what_cannot_be_copied_is_refused_by_its_name(attribute: str, value: object) -> None:
    module = Base()
    setattr(module.second, attribute, value)
    message = refusal_of(module)
    assert f"attribute {attribute} of layer second can't be copied" in message
    assert "\n" not in message


def test_copying_that_fails_for_the_model_as_a_whole_is_refused() -> None:
    class Unique(Base):
        def __deepcopy__(self, memo: object) -> None:
            raise PermissionError("there is only one")

    assert "model Unique can't be copied (PermissionError: there is only one)" in refusal_of(
        Unique()
    )


@pytest.mark.parametrize(
    "layer", [nn.LazyConv2d(8, 1), nn.LazyBatchNorm2d()], ids=lambda layer: type(layer).__name__
)
def test_lazy_layers_are_refused_until_they_have_weights(layer: nn.Module) -> None:
    class Lazy(Base):
        def __init__(self) -> None:
            super().__init__()
            self.lazy = layer

        def between(self, maps: Tensor) -> Tensor:
            through: Tensor = self.lazy(maps)
            return through

    message = refusal_of(Lazy())
    assert f"layer lazy ({type(layer).__name__}) has no weights yet" in message
    module = Lazy()
    module(inputs_of().float())
    assert DroppableNetwork(module, inputs_of().float()).groups[0].name == "first"


@pytest.mark.parametrize("as_layer", [True, False])
def test_randomised_relu_is_supported(as_layer: bool) -> None:
    class Randomised(Base):
        def __init__(self) -> None:
            super().__init__()
            self.slopes = nn.RReLU()

        def between(self, maps: Tensor) -> Tensor:
            below: Tensor = self.slopes(-maps)
            return below if as_layer else functional.rrelu(-maps, training=self.training)

    assert len(DroppableNetwork(Randomised(), inputs_of().float()).groups) == 2


UNFLATTENINGS: dict[str, Callable[[int], Callable[[Tensor], Tensor]]] = {
    "layer": lambda size: nn.Unflatten(1, (size, 1, 1)),
    "layer from behind": lambda size: nn.Unflatten(-1, (size, 1, 1)),
    "method": lambda size: lambda maps: maps.unflatten(1, (size, 1, 1)),
    "function": lambda size: lambda maps: torch.unflatten(maps, 1, (size, 1, 1)),
    "keywords": lambda size: lambda maps: maps.unflatten(dim=-1, sizes=(size, 1, 1)),
}


@pytest.mark.parametrize("way", UNFLATTENINGS)
def test_unflattened_channels_are_followed_unless_their_number_is_hard_coded(way: str) -> None:
    class Unflattening(Base):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.unflatten = UNFLATTENINGS[way](size)

        def between(self, maps: Tensor) -> Tensor:
            return self.unflatten(maps.mean((2, 3)))

    assert "size 8 is hard-coded; write -1" in refusal_of(Unflattening(8))
    network = DroppableNetwork(Unflattening(-1), inputs_of().float())
    assert [group.name for group in network.groups] == ["first", "second"]


class Returning(Base):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, inputs: Tensor) -> Any:
        return self.wrap(super().forward(inputs))


@dataclass
class Scores:
    logits: Tensor


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda scores: None, "model Returning returns no tensor: expected the scores"),
        (lambda scores: scores.size(0), "model Returning returns no tensor"),
        (lambda scores: "scores", "model Returning returns no tensor"),
        (Scores, "model Returning returns a Scores: expected a tensor"),
        (lambda scores: (scores, Scores(scores)), "model Returning returns a Scores"),
    ],
    ids=["nothing", "number", "text", "class", "class beside a tensor"],
)
def test_outputs_without_tensors_are_refused(wrap: Callable[[Tensor], Any], message: str) -> None:
    assert message in refusal_of(Returning(wrap))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda scores: (scores, 3),
        lambda scores: {"scores": scores, "unit": "logits"},
        lambda scores: [scores, (None, {"again": scores})],
    ],
    ids=["number", "text", "nested"],
)
def test_numbers_and_text_beside_tensors_are_supported(wrap: Callable[[Tensor], Any]) -> None:
    assert len(DroppableNetwork(Returning(wrap), inputs_of().float()).groups) == 2


def share_stored(module: Base) -> None:
    module.second.weight = nn.Parameter(module.other.weight.data)


def share_a_part(module: Base) -> None:
    both = torch.randn(2, 8)
    module.first.bias = nn.Parameter(both[0])
    module.second.bias = nn.Parameter(both.flatten()[4:12])


@pytest.mark.parametrize(
    ("share", "names"),
    [
        (share_stored, ("second.weight", "other.weight")),
        (share_a_part, ("first.bias", "second.bi")),
    ],
)
def test_tensors_that_share_memory_are_refused_by_their_names(
    share: Callable[[Base], None], names: tuple[str, str]
) -> None:
    class Sharing(Base):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Conv2d(8, 8, 3, padding=1)

        def between(self, maps: Tensor) -> Tensor:
            through: Tensor = self.other(maps)
            return through

    module = Sharing()
    share(module)
    message = refusal_of(module)
    assert "share memory" in message and "clone()" in message
    assert all(name in message for name in names)


def test_neighbours_in_one_memory_and_whole_tensors_in_it_are_supported() -> None:
    class Neighbours(Base):
        left: Tensor
        right: Tensor

        def __init__(self) -> None:
            super().__init__()
            both = torch.randn(16)
            self.first.bias = nn.Parameter(both[:8])
            self.second.bias = nn.Parameter(both[8:])
            table = torch.randn(4, 4)
            self.register_buffer("left", table)
            self.register_buffer("right", table[1:3])

    assert len(DroppableNetwork(Neighbours(), inputs_of().float()).groups) == 2


def test_unknown_scaling_is_refused() -> None:
    with pytest.raises((ValueError, InputError)):
        DroppableNetwork(Base(), inputs_of().float(), scaling="inverse")
