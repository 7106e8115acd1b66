"""Makes ``import torchvision`` work beside a PyTorch build that its compiled operators don't fit.

A torchvision wheel built for CUDA can't load its operators beside a CPU build of PyTorch, and then
fails to import for want of two operator schemas (pytorch/vision issue 9085). Models, data sets and
transforms need none of these operators: declaring the schemas is enough. On a machine where the
import works nothing is touched.

Studies, and what they import, need nothing of this: loading a study calls `help_torchvision`.
Elsewhere, import it from here: ``from distreal_dse.support.compat import torchvision``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torchvision

__all__ = ["help_torchvision", "torchvision"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_libraries: list[Any] = []  # a declaration lasts as long as its library


def help_torchvision() -> None:
    """See to it that ``import torchvision`` works from here on, whoever says it, and when.

    This imports nothing.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def __getattr__(name: str) -> Any:
    """Import torchvision, with help, when it is asked for."""
    if name == "torchvision":
        help_torchvision()
        return import_module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Finder(MetaPathFinder):
    """Finds torchvision where the others find it, and stays by while it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((one for one in found if one is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs the module, once more where its operators can't be loaded, and is gone."""

    def __init__(self, ordinary: Loader) -> None:
        self._ordinary = ordinary

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._ordinary.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._ordinary
        try:
            self._ordinary.exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _declare_operators()
            self._ordinary.exec_module(module)


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}{_SCHEMA}")
    _libraries.append(library)
