"""Which tracer finds the droppable channels: ours on torch.fx, or Torch-Pruning's.

For fourteen networks of torchvision: does it trace, how long does that take, what share of the
convolution filters can be dropped, does the network run with half of each group, and does that
equal the full network with the dropped channels zeroed? Ours is checked as every study is; see
`_torch_pruning.error_against_zeroing` for Torch-Pruning's own pruning. ``as_channel_map`` tells
whether Torch-Pruning's groups, turned into our channel map, pass the check that ours have to pass.

Small networks with an operation that reorders channels or computes across them show what happens at
the limits: a refusal is right, and so is a network that is dropped correctly.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import _torch_pruning
from benchmarks.figures import Figure, parser, report
from distreal_dse.dropout import check_dropping_equals_zeroing, trace_channels
from distreal_dse.support.compat import torchvision

NETWORKS = (
    "resnet18", "resnet50", "densenet121", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small",
    "efficientnet_b0", "googlenet", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "inception_v3",
)  # fmt: skip
FROZEN = "resnet18, front frozen"  # up to its second stage
# Between two convolutions of a small network: [N, C, H, W] → [N, C, H, W].
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped channels": lambda x: x.flip(1),
    "swapped halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "softmax over channels": lambda x: x.softmax(1),
    "mean over channels": lambda x: x - x.mean(1, keepdim=True),
    "running sum over channels": lambda x: x.cumsum(1),
    "branch on values": lambda x: x if x.sum() > 0 else -x,
}
REPETITIONS = 3
TOLERANCE = 1e-6  # of the largest output, in double precision


class Small(nn.Module):
    """Two convolutions with an operation between them."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.operation = OPERATIONS[operation]
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second, self.classifier = nn.Conv2d(16, 8, 3, padding=1), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] → [N, 10]."""
        x = self.operation(self.norm(self.first(x)).relu())
        x = self.second(x).relu().mean((2, 3))
        logits: Tensor = self.classifier(x)
        return logits


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network with fixed random weights, and an input."""
    if name in OPERATIONS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Small(name).eval(), torch.randn(2, 3, 8, 8)
    if name == FROZEN:
        model, example = build("resnet18")
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_(not parameter_name.startswith(("conv1", "bn1", "layer1")))
        return model, example
    options = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if name in ("googlenet", "inception_v3", "vgg11_bn"):
        options["init_weights"] = False  # slow
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.get_model(name, weights=None, num_classes=10, **options)
        if name == "vgg11_bn":  # 100 million weights that make no difference here
            model.classifier = nn.Sequential(
                nn.Linear(512 * 49, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10)
            )
        for part in model.modules():
            if isinstance(part, torchvision.ops.StochasticDepth):
                part.p = 0.0  # two networks would draw differently
        size = 96 if name == "inception_v3" else 64
        return model.eval(), torch.randn(2, 3, size, size)


def seconds(call: Callable[[], object]) -> float:
    """Median wall time of a call."""
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def filters(model: nn.Module) -> int:
    """Number of convolution filters."""
    return sum(part.out_channels for part in model.modules() if isinstance(part, nn.Conv2d))


def refusal(error: Exception) -> dict[str, Any]:
    """Kind and first line of an error."""
    line = (str(error).strip() or "no message").splitlines()[0]
    return {"reason": f"{type(error).__name__}: {line[:160]}"}


def ours(model: nn.Module, example: Tensor) -> tuple[float, dict[str, Any]]:
    """Share of filters and findings of our tracer."""
    try:
        channels = trace_channels(model, example)
    except Exception as error:  # whatever goes wrong is the finding
        return 0.0, {"traces": False, **refusal(error)}
    droppable = sum(
        int((layer.outputs != channels.fixed).sum())
        for layer in channels.layers
        if isinstance(model.get_submodule(layer.name), nn.Conv2d)
    )
    found: dict[str, Any] = {
        "traces": True,
        "seconds": round(seconds(lambda: trace_channels(model, example)), 3),
        "groups": len(channels.groups),
    }
    try:
        check_dropping_equals_zeroing(model, channels, example, "none")
        found |= {"half_runs": True, "equals_zeroing": True}
    except Exception as error:
        found |= {"half_runs": "does not run" not in str(error), "equals_zeroing": False}
        found |= refusal(error)
    return droppable / filters(model), found


def theirs(model: nn.Module, example: Tensor) -> tuple[float, dict[str, Any]]:
    """Share of filters and findings of Torch-Pruning."""
    try:
        graph, groups = _torch_pruning.find_groups(model, example)
    except Exception as error:
        return 0.0, {"traces": False, **refusal(error)}
    found: dict[str, Any] = {
        "traces": True,
        "seconds": round(seconds(lambda: _torch_pruning.find_groups(model, example)), 3),
        "groups": len(groups),
    }
    try:
        difference = _torch_pruning.error_against_zeroing(model, example)
        found |= {"half_runs": True, "equals_zeroing": difference < TOLERANCE}
        found |= {"relative_error": f"{difference:.1e}"}
    except Exception as error:
        found |= {"half_runs": False, "equals_zeroing": False, **refusal(error)}
    try:
        channels = _torch_pruning.as_channel_map(model, example)
        check_dropping_equals_zeroing(model, channels, example, "none")
        found |= {"as_channel_map": True}
    except Exception as error:
        found |= {"as_channel_map": False, "map_reason": refusal(error)["reason"]}
    droppable = sum(_torch_pruning.filters_of(graph, groups).values())
    return droppable / filters(model), found


def main() -> None:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--networks", nargs="*", default=[*NETWORKS, FROZEN, *OPERATIONS])
    given = arguments.parse_args()
    torch.set_num_threads(1)
    _torch_pruning.library()
    figures = []
    for name in given.networks:
        for tracer, measure in (("ours", ours), ("torch-pruning", theirs)):
            share, found = measure(*build(name))
            print(f"{name}, {tracer}: {share:.1%} {found}", file=sys.stderr)
            figures.append(
                Figure(f"{name}, {tracer}", share * 100, "% of filters", None, "higher", found)
            )
    report(figures, given.json)


if __name__ == "__main__":
    main()
