"""The table of searches, on the base that fronts have too; trials are in Optuna's tables."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from distreal_dse.fronts import Base
from distreal_dse.leases import Leased


class SearchRow(Leased, Base):
    """A search, and who carries it out (see `distreal_dse.leases`)."""

    __tablename__ = "searches"

    name: Mapped[str] = mapped_column(primary_key=True)
