"""Pictures from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distreal_dse.errors import InputError

if TYPE_CHECKING:
    from distreal_dse.fronts import Front
    from fl.api import FederatedResult


def plot(
    *subjects: Front | FederatedResult | Sequence[Front] | Sequence[FederatedResult],
    storage: str | os.PathLike[str] | None = None,
) -> Any:
    """Draw a front, fronts side by side, or the accuracy of federated runs over virtual time.

    Parameters
    ----------
    subjects
        One front; several fronts of one network, of which three or more that differ in their seed
        alone are a median with a band; or one or several results of `fl.run`. Or a list of them.
    storage
        Of a single front's search, whose other trials are then drawn too; None leaves them out.

    Returns
    -------
    plotly.graph_objects.Figure
        A notebook shows it; ``write_html`` and ``write_image`` save it.

    Raises
    ------
    InputError
        If there are neither fronts of one network nor runs alone.
    """
    from distreal_dse.fronts import Front
    from distreal_dse.support.installation import full_installation
    from fl.api import FederatedResult

    with full_installation("a picture"):
        from dashboards.figures import accuracy_figure, front_figure
        from dashboards.findings import TrialPoint
        from dashboards.lines import by_network, lines_of
        from dashboards.side_by_side import side_by_side_figure

    if len(subjects) == 1 and isinstance(subjects[0], list | tuple):
        subjects = tuple(subjects[0])
    if len(subjects) == 1 and isinstance(subjects[0], Front):
        front = subjects[0]
        trials: Sequence[TrialPoint] = () if storage is None else _trials(front, storage)
        return front_figure(front, trials)
    fronts = [one for one in subjects if isinstance(one, Front)]
    if fronts and len(fronts) == len(subjects):
        networks = by_network(fronts)
        if len(networks) != 1 or any(len(own) < len(fronts) for own in networks):
            raise InputError(
                "plot(): expected several fronts of one network, found fronts of others or one "
                "front twice; draw them one by one"
            )
        return side_by_side_figure(lines_of(networks[0]))
    runs = [one.run for one in subjects if isinstance(one, FederatedResult)]
    if not runs or len(runs) < len(subjects):
        found = ", ".join(type(one).__name__ for one in subjects) or "nothing"
        raise InputError(
            f"plot(): expected fronts of one network, or results of fl.run, found {found}"
        )
    return accuracy_figure(runs)


def _trials(front: Front, storage: str | os.PathLike[str]) -> Sequence[Any]:
    from dataclasses import asdict

    from dashboards.findings import TrialPoint
    from distreal_dse.search import tried_vectors
    from distreal_dse.support.storage import storage_url

    return [TrialPoint(**asdict(one)) for one in tried_vectors(storage_url(storage), front)]
