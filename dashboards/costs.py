"""Where the cost lies: MACs by layer, and time against MACs where it was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from dashboards.figures import HOVER_GROUPS, LEGEND_ROOM, cost_axis, figure_title, plotly_text
from dashboards.findings import percent
from dashboards.heatmaps import (
    Cells,
    column_labels,
    column_meaning,
    heat_map,
    part_of,
    row_names,
)
from dashboards.style import COST_SCALE, FAINT, device_looks, template
from distreal_dse.fronts import Front, LayerCost, StoredLatency, channel_counts, layer_costs


@dataclass(frozen=True)
class Breakdown:
    """Training MACs by layer, of the points of a front and then of the full network.

    ``macs`` has shape [layers, points + 1].
    """

    layers: tuple[str, ...]
    macs: tuple[tuple[float, ...], ...]

    def share(self, row: int, column: int) -> float:
        """Share of a layer in the MACs of a vector."""
        total = math.fsum(row[column] for row in self.macs)
        return self.macs[row][column] / total if total else 0.0


def cost_breakdown(front: Front) -> Breakdown | None:
    """Training MACs by layer; None where the front doesn't tell, as those of earlier versions."""
    layers = layer_costs(front)
    if not layers:
        return None
    vectors = [*(point.kept_counts for point in front.points), _full(front)]
    return Breakdown(
        tuple(layer.name for layer in layers),
        tuple(tuple(layer.training(vector) for vector in vectors) for layer in layers),
    )


def breakdown_finding(breakdown: Breakdown) -> str:
    """Which layer costs most in the full network, and what it is at the cheapest point."""
    rows = range(len(breakdown.layers))
    most = max(rows, key=lambda row: breakdown.share(row, -1))
    return (
        f"{breakdown.layers[most]} takes {percent(breakdown.share(most, -1))} of the MACs of the "
        f"full network, {percent(breakdown.share(most, 0))} at the cheapest point"
    )


def breakdown_figure(front: Front, breakdown: Breakdown, rows: range | None = None) -> go.Figure:
    """Share of each layer in the training MACs of each point of the front, as a heat map.

    Parameters
    ----------
    front, breakdown
        The front, and what `cost_breakdown` returned for it.
    rows
        Which layers, all by default.
    """
    labels = column_labels(front)
    layers = breakdown.layers
    # The last column is of the full network, which may be the last point, too.
    shares = [
        [breakdown.share(row, column) for column in range(len(labels))]
        for row in range(len(layers))
    ]

    def cells(row: int) -> Cells:
        return Cells(
            layers[row],
            shares[row],
            [f"{100 * share:.0f}" for share in shares[row]],
            [
                f"<b>{plotly_text(layers[row])}</b><br>{macs:,.0f} MACs, {percent(share)} of those "
                f"of the vector<br>{column_meaning(front, column)}"
                for column, (share, macs) in enumerate(
                    zip(shares[row], breakdown.macs[row], strict=False)
                )
            ],
        )

    names = row_names(layers)
    rows = range(len(layers)) if rows is None else rows
    return heat_map(
        breakdown_finding(breakdown) + part_of(rows, len(layers), "layers"),
        [cells(row) for row in rows],
        [names[row] for row in rows],
        labels,
        COST_SCALE,
        largest=max(map(max, shares)),
    )


@dataclass(frozen=True)
class TimedVector:
    """A vector whose training step was timed: shares of those of the full network.

    ``kept`` are the kept counts as `ChannelCounts` shows them to people.
    """

    kept_counts: tuple[int, ...]
    kept: tuple[int, ...]
    macs: float
    time: float
    time_low: float
    time_high: float
    seconds: float
    device: str


def timed_vectors(front: Front, latencies: Sequence[StoredLatency]) -> list[TimedVector]:
    """The last measurement of each vector of a front's network on each device, by MACs."""
    layers, channels = layer_costs(front), channel_counts(front)
    full = _full(front)
    known = {full: 1.0}
    if front.cost_metric == "macs":
        known |= {point.kept_counts: point.cost / front.reference_cost for point in front.points}
    found: dict[tuple[str, tuple[int, ...]], TimedVector] = {}
    for one in latencies:
        vector = one.kept_counts
        if one.model_fingerprint != front.model_fingerprint or len(vector) != len(full):
            continue
        macs = known.get(vector) or _share(layers, vector, full)
        if macs is None:
            continue
        device = device_label(one)
        found[device, vector] = TimedVector(
            vector,
            channels.of(vector),
            macs,
            one.ratio_median,
            one.ratio_low,
            one.ratio_high,
            one.latency,
            device,
        )
    return sorted(found.values(), key=lambda one: (one.device, one.macs))


def latency_finding(timed: Sequence[TimedVector]) -> str:
    """The vector whose time falls most behind its MACs."""
    worst = max(timed, key=lambda one: one.time / one.macs)
    return (
        f"A vector with {percent(worst.macs)} of the MACs takes {percent(worst.time)} of the time "
        "of a full mini-batch"
    )


def latency_figure(timed: Sequence[TimedVector]) -> go.Figure:
    """Time of a training step against its MACs, both relative to the full network.

    Parameters
    ----------
    timed
        At least one vector.
    """
    devices = list(dict.fromkeys(one.device for one in timed))
    figure = go.Figure()
    low = min(one.macs for one in timed)
    # Straight on equal axes alone, so it is drawn as a curve.
    line = [100 * low ** (step / 40) for step in range(41)]
    figure.add_trace(
        go.Scatter(
            x=line,
            y=line,
            name="time in proportion to MACs",
            mode="lines",
            line={"color": FAINT, "dash": "dot", "width": 1.5},
            hoverinfo="skip",
        )
    )
    for device, look in zip(devices, device_looks(len(devices)), strict=True):
        own = [one for one in timed if one.device == device]
        figure.add_trace(
            go.Scatter(
                x=[100 * one.macs for one in own],
                y=[100 * one.time for one in own],
                name=plotly_text(device),
                mode="markers",
                marker={"color": look.color, "symbol": look.symbol, "size": 8},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * max(0.0, one.time_high - one.time) for one in own],
                    "arrayminus": [100 * max(0.0, one.time - one.time_low) for one in own],
                    "thickness": 1.2,
                    "width": 3,
                },
                hovertext=[
                    f"{percent(one.macs)} of the MACs, {percent(one.time)} of the time"
                    f"<br>{1000 * one.seconds:.4g} ms per mini-batch<br>"
                    f"kept: {_kept(one)}"
                    for one in own
                ],
                hoverinfo="text",
            )
        )
    figure.update_layout(
        template=template(),
        **figure_title(latency_finding(timed), LEGEND_ROOM + 20 * (len(figure.data) - 1)),
        height=400 + 24 * len(devices),
        showlegend=True,
        xaxis={
            "title": {"text": "training MACs (% of the full network)"},
            **cost_axis([100 * one.macs for one in timed]),
        },
        yaxis={
            "title": {"text": "time per mini-batch (% of the full network)"},
            **cost_axis([100 * one.time for one in timed]),
        },
    )
    return figure


def device_label(one: StoredLatency) -> str:
    """A device in few words, with its threads and the batch size, which both change its times."""
    how = f"{one.threads} thr., batch {one.batch_size} [{one.device_hash[:4]}]"
    return f"{device_name(one.device)}, {how}"


def device_name(device: Mapping[str, Any]) -> str:
    """What a device is, by its fingerprint: short, as a phone is 46 characters wide."""
    name = str(device.get("gpu") or device.get("cpu") or device.get("kind") or "device")
    return name if len(name) <= 28 else f"{name[:27]}…"


def _kept(one: TimedVector) -> str:
    shown = "-".join(map(str, one.kept[:HOVER_GROUPS]))
    return shown + ("-…" if len(one.kept) > HOVER_GROUPS else "")


def _full(front: Front) -> tuple[int, ...]:
    return tuple(group.channels for group in front.groups)


def _share(layers: Sequence[LayerCost], vector: Sequence[int], full: Sequence[int]) -> float | None:
    if not layers:
        return None
    return math.fsum(layer.training(vector) for layer in layers) / math.fsum(
        layer.training(full) for layer in layers
    )
