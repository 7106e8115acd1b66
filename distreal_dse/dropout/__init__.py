"""How filters are dropped: channel groups, dropout vectors, mask policies, sub-networks."""

from distreal_dse.dropout._channels import ChannelGroup, ChannelMap, NormLayer, WeightedLayer
from distreal_dse.dropout._extracting import extracted
from distreal_dse.dropout._nesting import Nesting
from distreal_dse.dropout._network import DroppableNetwork
from distreal_dse.dropout._operations import BATCH_NORMS, NORMS_WITH_STATISTICS
from distreal_dse.dropout._policies import ComposedMasks, MaskPolicy, RandomMasks
from distreal_dse.dropout._policy_check import check_mask_policy
from distreal_dse.dropout._policy_specs import make_policy, policy_names
from distreal_dse.dropout._proximal import Proximal, check_proximal
from distreal_dse.dropout._stacked_optimizer import check_stackable, stacked_bytes
from distreal_dse.dropout._stacked_training import (
    Batch,
    Part,
    StackedLoss,
    StackedObjective,
    StackedTrainer,
)
from distreal_dse.dropout._stacks import StackedSubNetworks
from distreal_dse.dropout._subnetwork import SubNetwork, Workspace, wrong_mask
from distreal_dse.dropout._tracing import trace_channels
from distreal_dse.dropout._training import DropoutTrainer, Objective, check_inside
from distreal_dse.dropout._vector import (
    KeptCounts,
    Vector,
    allowed_counts,
    check_counts,
    counts_of,
    kept_counts,
    uniform_rate,
)
from distreal_dse.dropout._zeroing import check_dropping_equals_zeroing, zero_dropped

__all__ = [
    "BATCH_NORMS",
    "Batch",
    "ChannelGroup",
    "ChannelMap",
    "ComposedMasks",
    "DroppableNetwork",
    "DropoutTrainer",
    "KeptCounts",
    "MaskPolicy",
    "NORMS_WITH_STATISTICS",
    "Nesting",
    "NormLayer",
    "Objective",
    "Part",
    "Proximal",
    "StackedLoss",
    "StackedObjective",
    "StackedSubNetworks",
    "StackedTrainer",
    "RandomMasks",
    "SubNetwork",
    "Vector",
    "WeightedLayer",
    "Workspace",
    "check_counts",
    "counts_of",
    "check_dropping_equals_zeroing",
    "check_inside",
    "check_mask_policy",
    "check_proximal",
    "check_stackable",
    "allowed_counts",
    "extracted",
    "kept_counts",
    "make_policy",
    "policy_names",
    "stacked_bytes",
    "trace_channels",
    "uniform_rate",
    "wrong_mask",
    "zero_dropped",
]
