"""``distreal-dse front verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from distreal_dse.cli._arguments import (
    DataOption,
    DeviceOption,
    FrontArgument,
    JsonOption,
    LocalWorkersOption,
    StorageOption,
    StudyFileOption,
    StudyOptions,
    check_device,
    study_source,
)
from distreal_dse.cli._console import interruptible, kept_heading, point_cells, print_json
from distreal_dse.cli._kept_counts import KeptCounts
from distreal_dse.support.progress import console

if TYPE_CHECKING:
    from rich.table import Table

    from distreal_dse.fronts import FrontPoint
    from distreal_dse.search import Reverified


def verify(
    front: FrontArgument,
    replicates: Annotated[
        int | None,
        typer.Option(metavar="N", help="Short runs of each point. Default: the study's."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the short runs. Default: the search's and one.")
    ] = None,
    workers: LocalWorkersOption = 1,
    study: StudyFileOption = None,
    storage: StorageOption = None,
    device: DeviceOption = "cpu",
    data: DataOption = None,
    option: StudyOptions = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a front's points again from another seed, and say what of it holds.

    Exit code 1 where a vector that was certainly better than one rate for all layers was not again.
    """
    from distreal_dse.api import verify as verify_front

    screen = console()
    kept = "finished short runs are kept; the same command goes on"
    with interruptible(lambda: kept):
        again = verify_front(
            front,
            study=study,
            replicates=replicates,
            seed=seed,
            workers=workers,
            storage=storage,
            device=check_device(device),
            options=dict(study_source(front, data, option).options),
        )
    if as_json:
        print_json(_verified_json(again))
    else:
        screen.print(_verified_table(again))
        screen.print(_verified(again), markup=False, soft_wrap=True)
    if not all(claim.holds for claim in again.claims):
        raise typer.Exit(1)


def _verified_table(again: Reverified) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"Front {again.front.label}, measured again"), title_justify="left")
    for heading in (f"cost ({again.front.cost_unit})", "of full", "loss gain before", "now"):
        table.add_column(heading, justify="right")
    table.add_column(KeptCounts(kept_heading(again.front)))
    table.add_column("")
    rows = zip(again.pairs, again.non_dominated, strict=True)
    for (before, now), holds in reversed(list(rows)):
        cost, share, gain, *_, kept = point_cells(again.front, before)
        gain_now = point_cells(again.front, now)[2]
        remarks = {"dominated now": not holds, "harms now": now.harms}
        said = ", ".join(remark for remark, applies in remarks.items() if applies)
        table.add_row(cost, share, gain, gain_now, KeptCounts(kept), said)
    return table


def _verified(again: Reverified) -> str:
    """What holds, in words."""
    from distreal_dse.fronts import channel_counts

    front, count, claims = again.front, len(again.points), again.claims
    lines = [
        f"Front {front.label}, from another start: {sum(again.non_dominated)} of {count} points "
        f"are non-dominated; hypervolume {front.hypervolume:.3f} before, {again.hypervolume:.3f} "
        "now."
    ]
    if claims:
        held = sum(claim.holds for claim in claims)
        lines.append(
            f"{held} of {len(claims)} vectors that were certainly better than one rate for all "
            "layers gained more than it again."
        )
    if (verdict := again.verdict) is not None and verdict.savings:
        lines.append(f"By these runs alone: {verdict.sentence()}. {verdict.details()}")
    if harmful := sum(point.harms for point in again.points):
        lines.append(f"{harmful} of them harm now: their loss gain is below 0.")
    channels = channel_counts(front)
    for key, reason in again.failures.items():
        lines.append(f"Failed: {channels.text([*map(int, key.split('-'))])}: {reason}")
    return "\n".join(lines)


def _verified_json(again: Reverified) -> dict[str, Any]:
    front = again.front
    rows = zip(again.pairs, again.non_dominated, strict=True)
    return {
        "front": front.label,
        "hash": front.content_hash,
        "claims": [
            {
                "kept_counts": claim.before.vector.kept_counts,
                "cost": claim.before.vector.cost,
                "one_rate_cost": claim.before.at_least,
                "difference": claim.difference,
                "holds": claim.holds,
            }
            for claim in again.claims
        ],
        "hypervolume": {"before": front.hypervolume, "now": again.hypervolume},
        "points": [
            {
                "kept_counts": before.kept_counts,
                "cost": before.cost,
                "non_dominated": holds,
                "before": _measured(before),
                "now": _measured(now),
            }
            for (before, now), holds in rows
        ],
        "failures": dict(again.failures),
    }


def _measured(point: FrontPoint) -> dict[str, float]:
    names = ("convergence", "standard_error", "replicates", "accuracy")
    return {name: getattr(point, name) for name in names}
