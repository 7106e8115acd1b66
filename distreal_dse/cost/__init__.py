"""What a vector costs."""

from distreal_dse.cost._macs import MacCost

__all__ = ["MacCost"]
