"""Losses that leave out the classes that a device has no sample of.

References
----------
Diao, Ding, Tarokh: HeteroFL, ICLR 2021, section 3 (masked cross-entropy).
"""

from __future__ import annotations

from collections.abc import Callable

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
