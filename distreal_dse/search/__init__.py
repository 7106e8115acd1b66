"""The DSE on Optuna: space, samplers, executors, verification, resume."""

from distreal_dse.search._search import search
from distreal_dse.search._settings import SearchProgress, SearchSettings
from distreal_dse.search._tried import StoredSearch, TriedVector, stored_search, tried_vectors
from distreal_dse.search.executors import (
    Evaluator,
    Executor,
    InlineExecutor,
    Outcome,
    ProcessExecutor,
    Task,
)
from distreal_dse.search.ledger import (
    close_trials,
    open_trials,
    plain_errors,
    searches_under_way,
)
from distreal_dse.search.proposer import SAMPLERS, CostAwareSampler, Problem, SearchSpace
from distreal_dse.search.verdicts import Claim, Reverified, reverify

__all__ = [
    "SAMPLERS",
    "Claim",
    "CostAwareSampler",
    "Evaluator",
    "Executor",
    "InlineExecutor",
    "Problem",
    "Outcome",
    "ProcessExecutor",
    "Reverified",
    "SearchProgress",
    "SearchSettings",
    "SearchSpace",
    "Task",
    "StoredSearch",
    "TriedVector",
    "close_trials",
    "open_trials",
    "plain_errors",
    "reverify",
    "search",
    "searches_under_way",
    "stored_search",
    "tried_vectors",
]
