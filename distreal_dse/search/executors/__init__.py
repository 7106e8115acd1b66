"""Where short runs are done: in this process, or in others."""

from distreal_dse.search.executors._evaluation import (
    Evaluator,
    Outcome,
    ShortRunTask,
    TableTask,
    Task,
)
from distreal_dse.search.executors._executors import (
    Executor,
    InlineExecutor,
    ProcessExecutor,
    make_executor,
)

__all__ = [
    "Evaluator",
    "Executor",
    "InlineExecutor",
    "Outcome",
    "ProcessExecutor",
    "ShortRunTask",
    "TableTask",
    "Task",
    "make_executor",
]
