"""HeteroFL: each device trains the first filters of every layer, as many as its level allows.

References
----------
Diao, Ding, Tarokh: HeteroFL: Computation and communication efficient federated learning for
heterogeneous clients, ICLR 2021, section 3.
"""

from __future__ import annotations

from fl.strategies.levels import LevelStrategy

# Hidden-channel shrinkage to the power of 0 … 4, with the shrinkage ratio 0.5: levels a to e of the
# paper's experiments.
LEVELS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)


class HeteroFl(LevelStrategy):
    """Ordered masks of the level that fits the budget at the beginning of the round.

    The element-wise average over the devices that hold an element is the paper's, weighted by
    samples as everywhere here (the authors' code weights devices alike). Of its other ingredients:

    - *Scaler* (training outputs of each layer over the keep ratio): the study's scaling, whose
      ``"inverted"`` multiplies the inputs of the next layer by the same factor;
    - *static batch normalisation* (no running statistics in training, measured on all data
      afterwards): mini-batches normalise by their own statistics anyway, and evaluations measure
      the running ones again (`distreal_dse.data.evaluation`);
    - *masked cross-entropy* (logits of classes that a device has no samples of are set to zero, and
      the rows of the output layer are averaged over the devices that hold their class): both are
      no matter of masks, and so an option of the run for all strategies
      (`fl.settings.RunSettings.masked_loss`). Without it, as by default, this strategy has neither.

    Kept counts are rounded as everywhere in the study; the authors' code rounds up.
    """

    name = "heterofl"
    chosen = "per round"
    levels = LEVELS
    masks = "ordered"
    averaging = "contributors"
