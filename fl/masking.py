"""Losses that heed which classes a device has samples of, and how many.

References
----------
Diao, Ding, Tarokh: HeteroFL, ICLR 2021, section 3 (masked cross-entropy).

Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-tail learning via logit adjustment, ICLR 2021,
section 4.2 (logits plus the logarithm of class frequencies, in training alone).

Zhang, Li, Li, Xu, Wu, Ding, Wu: Federated learning with label distribution skew via logits
calibration, ICML 2022 (the same, with each device's own frequencies).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def masked(loss: Loss, labels: Tensor) -> Loss:
    """Return the loss with the outputs of classes that do not occur set to zero.

    So a device does not teach the network that the classes that it never sees are wrong.

    Parameters
    ----------
    loss
        Mean loss from outputs, shape [N, classes], and targets, shape [N].
    labels
        The classes that occur, in any number, shape [M].
    """
    known = labels.unique()

    def of_known(outputs: Tensor, targets: Tensor) -> Tensor:
        return loss(keep_classes(outputs, known), targets)

    return of_known


def keep_classes(outputs: Tensor, known: Tensor) -> Tensor:
    """Set the outputs of other classes to zero.

    Parameters
    ----------
    outputs
        Shape [N, classes].
    known
        The classes to keep, in any number, shape [M].
    """
    kept = outputs.new_zeros(outputs.shape[1])
    kept[known.to(outputs.device)] = 1
    return outputs * kept


def adjusted(loss: Loss, labels: Tensor) -> Loss:
    """Return the loss of logits that are relative to how often classes occur.

    The logarithm of the frequency of its class is added to each logit; classes that do not occur
    are left out, which is the limit of that. So what is learned tells the classes that occur from
    one another, and neither that some are more frequent nor that others do not occur.

    Parameters
    ----------
    loss
        Mean loss from logits, shape [N, classes], and class indices, shape [N]; of any number of
        classes.
    labels
        Those of the device's samples, shape [M], M ≥ 1.
    """
    known, counts = labels.unique(return_counts=True)
    offsets = (counts / counts.sum()).log()

    def of_adjusted(outputs: Tensor, targets: Tensor) -> Tensor:
        here = known.to(outputs.device)
        places = torch.searchsorted(here, targets)
        return loss(outputs[:, here] + offsets.to(outputs), places)

    return of_adjusted
