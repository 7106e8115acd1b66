"""FedRolex: a window of filters that rolls over every layer, one filter per round.

References
----------
Alam, Liu, Yan, Zhang: FedRolex: Model-heterogeneous federated learning with rolling sub-model
extraction, NeurIPS 2022, section 3.
"""

from __future__ import annotations

from fl.strategies.levels import LevelStrategy

# As HeteroFL's, which the paper compares with on the same levels.
LEVELS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)


class FedRolex(LevelStrategy):
    """Rolling masks of the level that fits the budget at the beginning of the round.

    In round j, a device of keep ratio β trains the filters (j + 0 … βK − 1) mod K of a layer of K
    (section 3), so all parts of the network are trained equally often. Each element is averaged
    over the devices whose window holds it, weighted by samples as everywhere here.

    The authors' code differs from the paper: its window moves downwards, because ``torch.roll``
    shifts indices up; and it weights devices alike in convolutions, and by how often elements were
    trained before in other layers.

    Layers that a shortcut ties together roll together, and kept counts are rounded as everywhere
    in the study.
    """

    name = "fedrolex"
    chosen = "per round"
    levels = LEVELS
    masks = "rolling"
    averaging = "contributors"
