"""What is kept of a search: its trials, its short runs, and who carries it out."""

from distreal_dse.search.ledger._archive import (
    DIRECTIONS,
    IMPLIED,
    SETTINGS,
    TrialArchive,
    cost_metric,
)
from distreal_dse.search.ledger._comparable import SAME_LOSS, check_agreement, comparable_settings
from distreal_dse.search.ledger._holding import holding_search
from distreal_dse.search.ledger._ledger import (
    STREAM,
    FinishedRun,
    Ledger,
    Progress,
    trial_run,
    vector_of,
)
from distreal_dse.search.ledger._schema import SearchRow
from distreal_dse.search.ledger._trial_tables import close_trials, open_trials, plain_errors

__all__ = [
    "DIRECTIONS",
    "FinishedRun",
    "IMPLIED",
    "Ledger",
    "Progress",
    "SAME_LOSS",
    "SETTINGS",
    "STREAM",
    "SearchRow",
    "TrialArchive",
    "check_agreement",
    "close_trials",
    "comparable_settings",
    "cost_metric",
    "holding_search",
    "open_trials",
    "plain_errors",
    "trial_run",
    "vector_of",
]
