"""Makes ``import torchvision`` work beside a PyTorch build that its compiled operators don't fit.

A torchvision wheel built for CUDA can't load its operators beside a CPU build of PyTorch, and then
fails to import for want of two operator schemas (pytorch/vision issue 9085). Models, data sets and
transforms need none of these operators: declaring the schemas is enough. On a machine where the
import works nothing is touched.
Import it from here: ``from distreal_dse.compat import torchvision``.
"""

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _operator in ("nms", "qnms"):
        _library.define(f"{_operator}{_SCHEMA}")
    import torchvision

__all__ = ["torchvision"]
