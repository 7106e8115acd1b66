"""A search that this process carries out: what is searched, where it is kept, who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection
from sqlalchemy import Engine

from distreal_dse.dropout import DroppableNetwork
from distreal_dse.search._settings import Listener, SearchProgress, SearchSettings
from distreal_dse.search.executors import Executor, make_executor
from distreal_dse.search.ledger import DIRECTIONS, Ledger, TrialArchive
from distreal_dse.study import Data, Study


@dataclass(frozen=True)
class SearchJob:
    """What all kinds of search have in common.

    Parameters
    ----------
    settings, storage, listen, executor
        As for `distreal_dse.search.search`.
    study, name, engine
        What is searched, under which name, and the opened database.
    check
        Raises if the search was taken over.
    """

    settings: SearchSettings
    study: Study
    name: str
    storage: str
    engine: Engine
    check: Callable[[], None]
    listen: Listener
    executor: Executor | None = None

    @contextmanager
    def opened(
        self,
        network: DroppableNetwork,
        data: Data,
        comparable: Mapping[str, Any],
        attributes: Mapping[str, Any],
        directions: Sequence[StudyDirection] = DIRECTIONS,
        values: Sequence[str] = (),
    ) -> Iterator[tuple[TrialArchive, Ledger]]:
        """Give what is kept of the search, once short runs can be done and compared with it.

        Parameters
        ----------
        network, data
            As `distreal_dse.preparation.prepare` gives them.
        comparable, attributes, directions, values
            As for `TrialArchive`.
        """
        settings = self.settings
        archive = TrialArchive(
            self.storage, self.name, comparable, attributes, self.check, directions, values
        )
        with closing(archive):
            executor = self.executor or make_executor(
                self.study,
                network,
                data,
                settings.source,
                settings.seed,
                settings.device,
                settings.workers,
                lambda done, total: self.listen(SearchProgress("warm-up", done, total)),
            )
            with closing(executor):
                archive.check_snapshots(executor.snapshot_losses())
                yield (
                    archive,
                    Ledger(executor, self.engine, archive.key, settings.seed, self.check),
                )
