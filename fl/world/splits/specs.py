"""Splits from text, such as ``iid`` or ``dirichlet:alpha=0.3``."""

from __future__ import annotations

from distreal_dse.support.registry import Registry, entry_of
from fl.world.splits.base import Split
from fl.world.splits.by_class import ByClassSplit
from fl.world.splits.dirichlet import DirichletSplit
from fl.world.splits.iid import IidSplit
from fl.world.splits.owners import OwnersSplit
from fl.world.splits.shards import ShardsSplit

PLUG_INS = "distreal_dse.splits"
"""Group of entry points: a name of letters, digits and ``-``, and what makes a `Split`."""

_SPLITS = Registry[Split](
    "split",
    Split,
    {
        "iid": entry_of(IidSplit),
        "dirichlet": entry_of(DirichletSplit),
        "shards": entry_of(ShardsSplit),
        "owners": entry_of(OwnersSplit),
        "by-class": entry_of(ByClassSplit),
    },
    PLUG_INS,
)


def split_names() -> list[str]:
    """Names that `make_split` knows: the built-in ones, then those of installed plug-ins."""
    return _SPLITS.names()


def make_split(spec: str | Split) -> Split:
    """Make a split from text; a split is returned as it is.

    Parameters
    ----------
    spec
        A name, or ``NAME:SETTING=VALUE,…``. Built in are ``iid``, ``dirichlet``, ``shards``,
        ``owners`` and ``by-class`` with the parameters of their classes as settings. Other names
        are looked up among the entry points of the group ``distreal_dse.splits``: each is called
        with its settings as keyword arguments, all of them text, and returns a `Split`.

    Raises
    ------
    InputError
        If there is no split of this name, or its settings don't fit.
    """
    return spec if isinstance(spec, Split) else _SPLITS.make(spec)
