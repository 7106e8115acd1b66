"""The DSE on Optuna: space, samplers, executors, verification, resume."""

from distreal_dse.search._evaluation import Evaluator, Outcome, Task
from distreal_dse.search._executors import Executor, InlineExecutor, ProcessExecutor
from distreal_dse.search._reverification import Claim, Reverified, reverify
from distreal_dse.search._samplers import SAMPLERS
from distreal_dse.search._search import search
from distreal_dse.search._settings import SearchProgress, SearchSettings
from distreal_dse.search._space import SearchSpace
from distreal_dse.search._trial_tables import close_trials, open_trials, plain_errors
from distreal_dse.search._tried import StoredSearch, TriedVector, stored_search, tried_vectors

__all__ = [
    "SAMPLERS",
    "Claim",
    "Evaluator",
    "Executor",
    "InlineExecutor",
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
    "stored_search",
    "tried_vectors",
]
