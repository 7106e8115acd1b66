"""Who holds which training samples: one file per split."""

from fl.world.splits.base import Owners, Split
from fl.world.splits.by_class import ByClassSplit
from fl.world.splits.check import check_split
from fl.world.splits.dirichlet import DirichletSplit
from fl.world.splits.iid import IidSplit, split_iid
from fl.world.splits.owners import OwnersSplit
from fl.world.splits.samples import labels_of, owners_of, split_dataset
from fl.world.splits.shards import ShardsSplit
from fl.world.splits.specs import make_split, split_names

__all__ = [
    "ByClassSplit",
    "DirichletSplit",
    "IidSplit",
    "Owners",
    "OwnersSplit",
    "ShardsSplit",
    "Split",
    "check_split",
    "labels_of",
    "make_split",
    "owners_of",
    "split_dataset",
    "split_iid",
    "split_names",
]
