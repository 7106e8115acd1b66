"""What a device trains, and how updates are merged: one file per strategy."""

from fl.strategies.base import BudgetPlan, FixedPlan, LocalPlan, PricedVector, Strategy, Vector
from fl.strategies.context import StrategyContext, VectorTable
from fl.strategies.distreal import Distreal, masks_of
from fl.strategies.distreal_uniform import DistrealUniform
from fl.strategies.fedavg import FedAvg, FedAvgDrop
from fl.strategies.federated_dropout import FederatedDropout
from fl.strategies.fedrolex import FedRolex
from fl.strategies.fjord import Fjord, FjordDistilled
from fl.strategies.heterofl import HeteroFl
from fl.strategies.levels import LevelStrategy
from fl.strategies.nested import Nested
from fl.strategies.registry import (
    built_in_strategies,
    check_strategy,
    describe_strategies,
    make_strategy,
    strategy_class,
    strategy_names,
)
from fl.strategies.setting import AVERAGING, Setting
from fl.strategies.small import Small

__all__ = [
    "AVERAGING",
    "BudgetPlan",
    "Distreal",
    "DistrealUniform",
    "FedAvg",
    "FedAvgDrop",
    "FedRolex",
    "FederatedDropout",
    "FixedPlan",
    "Fjord",
    "FjordDistilled",
    "HeteroFl",
    "LevelStrategy",
    "LocalPlan",
    "Nested",
    "PricedVector",
    "Setting",
    "Small",
    "Strategy",
    "StrategyContext",
    "Vector",
    "VectorTable",
    "built_in_strategies",
    "check_strategy",
    "describe_strategies",
    "make_strategy",
    "masks_of",
    "strategy_class",
    "strategy_names",
]
