"""What is kept of a search: its trials, its short runs, and who carries it out."""

from distreal_dse.search.ledger._archive import (
    DIRECTIONS,
    IMPLIED,
    SETTINGS,
    TrialArchive,
    cost_metric,
    search_key,
)
from distreal_dse.search.ledger._company import POLL, Claim, Company, joining
from distreal_dse.search.ledger._comparable import SAME_LOSS, check_agreement, comparable_settings
from distreal_dse.search.ledger._holding import (
    Alone,
    holding_search,
    progress_notes,
    searches_under_way,
)
from distreal_dse.search.ledger._ledger import (
    STREAM,
    FinishedRun,
    Ledger,
    Progress,
    trial_run,
    vector_of,
)
from distreal_dse.search.ledger._schema import ClaimRow, DriverRow, SearchRow
from distreal_dse.search.ledger._shared_ledger import SharedLedger
from distreal_dse.search.ledger._trial_tables import close_trials, open_trials, plain_errors

__all__ = [
    "Alone",
    "Claim",
    "ClaimRow",
    "Company",
    "DIRECTIONS",
    "DriverRow",
    "FinishedRun",
    "IMPLIED",
    "Ledger",
    "POLL",
    "Progress",
    "SAME_LOSS",
    "SETTINGS",
    "STREAM",
    "SearchRow",
    "SharedLedger",
    "TrialArchive",
    "check_agreement",
    "close_trials",
    "comparable_settings",
    "cost_metric",
    "holding_search",
    "joining",
    "open_trials",
    "plain_errors",
    "progress_notes",
    "search_key",
    "searches_under_way",
    "trial_run",
    "vector_of",
]
