"""Who holds which training samples: one file per split."""

from fl.splits.base import Owners, Split
from fl.splits.by_class import ByClassSplit
from fl.splits.check import check_split
from fl.splits.dirichlet import DirichletSplit
from fl.splits.iid import IidSplit, split_iid
from fl.splits.owners import OwnersSplit
from fl.splits.samples import labels_of, owners_of, split_dataset
from fl.splits.shards import ShardsSplit
from fl.splits.specs import make_split, split_names

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
