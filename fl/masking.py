"""Losses that heed which classes a device has samples of, and how many.

References
----------
Diao, Ding, Tarokh: HeteroFL, ICLR 2021, section 3 (masked cross-entropy; how the server then
averages is in `fl.averaging.average_classes`).

Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-tail learning via logit adjustment, ICLR 2021,
section 4.2 (logits plus the logarithm of class frequencies, in training alone).

Zhang, Li, Li, Xu, Wu, Ding, Wu: Federated learning with label distribution skew via logits
calibration, ICML 2022 (the same, with each device's own frequencies).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distreal_dse.errors import InputError

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


def output_tensors(module: nn.Module, example: Tensor) -> list[str]:
    """Return the names of trainable tensors that have a row for each class: weights and biases.

    A row is one if the output of its class depends on it, and no other output does. So the layer
    is found whatever it is called.

    Parameters
    ----------
    module
        Its outputs have the shape [N, classes].
    example
        Inputs, shape [N, …].

    Raises
    ------
    InputError
        If there are none.
    """
    modes = [(part, part.training) for part in module.modules()]
    trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
    try:
        with torch.enable_grad():
            outputs = module.eval()(example)
            count = outputs.shape[1]
            # Tensors of a hidden layer of that width would have to be taken for rows three times.
            for one in sorted({0, count // 2, count - 1}):
                gradients = torch.autograd.grad(
                    outputs[:, one].sum(), list(trainable.values()), None, True, allow_unused=True
                )
                trainable = {
                    name: parameter
                    for (name, parameter), gradient in zip(
                        trainable.items(), gradients, strict=True
                    )
                    if gradient is not None and _is_of_row(gradient, one, count)
                }
                if not trainable:
                    break
    finally:
        for part, training in modes:
            part.training = training
    if not trainable:
        raise InputError(
            "masked loss: expected a network that ends in a layer with trainable rows, one for "
            "each class, found none; leave out --masked-loss"
        )
    return list(trainable)


def _is_of_row(gradient: Tensor, row: int, rows: int) -> bool:
    if gradient.dim() == 0 or len(gradient) != rows:
        return False
    changed = (gradient != 0).reshape(rows, -1).any(1)
    return bool(changed[row]) and int(changed.sum()) == 1


def keep_classes(outputs: Tensor, known: Tensor) -> Tensor:
    """Set the outputs of other classes to zero.

    Parameters
    ----------
    outputs
        Shape [N, classes].
    known
        The classes to keep, in any number, shape [M].
    """
    return outputs * class_row(known, outputs.shape[1], outputs)


def class_row(known: Tensor, classes: int, like: Tensor) -> Tensor:
    """Return 1 for each class that is known and 0 for the others, shape [classes].

    Parameters
    ----------
    known
        The classes, in any number, shape [M].
    classes
        How many there are.
    like
        Gives type and device.
    """
    row = like.new_zeros(classes)
    row[known.to(like.device)] = 1
    return row


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
    known, offsets = class_offsets(labels)

    def of_adjusted(outputs: Tensor, targets: Tensor) -> Tensor:
        return adjusted_by(loss, outputs, targets, known, offsets)

    return of_adjusted


def class_offsets(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes that occur, ascending, and the logarithms of their frequencies."""
    known, counts = labels.unique(return_counts=True)
    return known, (counts / counts.sum()).log()


def adjusted_by(
    loss: Loss, outputs: Tensor, targets: Tensor, known: Tensor, offsets: Tensor
) -> Tensor:
    """Return the loss of logits plus offsets, over the classes that are known; see `adjusted`.

    Parameters
    ----------
    loss, outputs, targets
        Logits, shape [N, classes], and class indices, shape [N], that are all known.
    known, offsets
        As of `class_offsets`, shape [M].
    """
    here = known.to(outputs.device)
    places = torch.searchsorted(here, targets)
    return loss(outputs[:, here] + offsets.to(outputs), places)


def drift(core: Tensor, outputs: Tensor, part: Tensor, known: Tensor) -> Tensor:
    """Return how far a part of some logits drifts from those that it is added to.

    The mean square of what it raises, and of the change of the logarithm of Σ exp over the classes
    that are known: by how much these become more or less probable, all together, against others.

    Parameters
    ----------
    core
        Logits that count as given, shape [N, classes].
    outputs
        The logits with all parts so far, this one among them, shape [N, classes].
    part
        What is added, shape [N, classes].
    known
        The classes that count, shape [M], M ≥ 1.
    """
    here = known.to(part.device)
    together = outputs[:, here].logsumexp(1) - core[:, here].logsumexp(1)
    return part[:, here].clamp(min=0).square().mean() + together.square().mean()
