"""What a vector gains: short runs from a snapshot, paired seeds, standard errors."""

from distreal_dse.convergence._short_runs import Convergence, Replicate, ShortRuns

__all__ = ["Convergence", "Replicate", "ShortRuns"]
