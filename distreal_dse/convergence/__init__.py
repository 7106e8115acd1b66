"""What a vector or a table gains: short runs, paired seeds, standard errors."""

from distreal_dse.convergence._fleet_table import FleetTable
from distreal_dse.convergence._short_runs import Convergence, Replicate, ShortRuns, TableRuns

__all__ = ["Convergence", "FleetTable", "Replicate", "ShortRuns", "TableRuns"]
