"""A search that this process carries out: what is searched, where it is kept, who hears of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from optuna.study import StudyDirection
from sqlalchemy import Engine

from distreal_dse.dropout import DroppableNetwork
from distreal_dse.search._settings import Listener, SearchProgress, SearchSettings
from distreal_dse.search.executors import Executor, make_executor
from distreal_dse.search.ledger import (
    DIRECTIONS,
    Alone,
    Company,
    Ledger,
    SharedLedger,
    TrialArchive,
    search_key,
)
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
    driver
        This process' part in the search: all of it, or one among others.
    """

    settings: SearchSettings
    study: Study
    name: str
    storage: str
    engine: Engine
    driver: Alone | Company
    listen: Listener
    executor: Executor | None = None

    @property
    def company(self) -> Company | None:
        """Where others work on the search, too."""
        return self.driver if isinstance(self.driver, Company) else None

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
            As `distreal_dse.study.preparation.prepare` gives them.
        comparable, attributes, directions, values
            As for `TrialArchive`.
        """
        settings, check = self.settings, self.driver.check
        key = search_key(self.name, comparable)
        self.driver.agree(key)
        archive = TrialArchive(
            self.storage, self.name, comparable, attributes, check, directions, values
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
                losses = executor.snapshot_losses()
                self.driver.agree(key, losses[0])
                archive.check_snapshots(losses)
                seed, company = settings.seed, self.company
                if company is None:
                    yield archive, Ledger(executor, self.engine, key, seed, check)
                else:
                    yield archive, SharedLedger(executor, self.engine, key, seed, company)
