"""Several processes work on one search; how far those are that work on one."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PROGRESS = ("stage", "done", "total")
FINISHED = ("front", "front_trials", "finishes")


def _progress() -> list[sa.Column[Any]]:
    return [
        sa.Column("stage", sa.String, nullable=True),
        sa.Column("done", sa.Integer, nullable=True),
        sa.Column("total", sa.Integer, nullable=True),
    ]


def upgrade() -> None:
    """Add columns and create the tables; searches of earlier versions have nothing to put there."""
    for column in _progress():
        op.add_column("searches", column)
    op.add_column("searches", sa.Column("front", sa.String, nullable=True))
    op.add_column("searches", sa.Column("front_trials", sa.Integer, nullable=True))
    op.add_column("searches", sa.Column("finishes", sa.Integer, nullable=True))
    op.create_table(
        "search_drivers",
        sa.Column("key", sa.String, nullable=False),
        sa.Column("search", sa.String, nullable=False),
        sa.Column("pilot", sa.Boolean, nullable=False),
        sa.Column("settings_key", sa.String, nullable=True),
        sa.Column("snapshot", sa.Double, nullable=True),
        sa.Column("trials", sa.Integer, nullable=False),
        sa.Column("searching", sa.Boolean, nullable=False),
        sa.Column("owner", sa.String, nullable=True),
        sa.Column("owned_since", sa.String, nullable=True),
        sa.Column("heartbeat", sa.Double, nullable=True),
        *_progress(),
        sa.PrimaryKeyConstraint("key", name="pk_search_drivers"),
    )
    op.create_table(
        "search_claims",
        sa.Column("search", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("replicate", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("driver", sa.String, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("trial", sa.Integer, nullable=True),
        sa.Column("failure", sa.String, nullable=True),
        sa.PrimaryKeyConstraint("search", "name", "replicate", name="pk_search_claims"),
    )


def downgrade() -> None:
    """Drop what was added; trials and short runs stay."""
    op.drop_table("search_claims")
    op.drop_table("search_drivers")
    for name in (*FINISHED, *PROGRESS):
        op.drop_column("searches", name)
