"""What a training step of a front's point takes of memory."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of points that are there already it is not known."""
    op.add_column("front_points", sa.Column("memory", sa.BigInteger, nullable=True))


def downgrade() -> None:
    """Drop the column.

    Fronts that have it no longer agree with their content hash: they are refused when loaded.
    """
    op.drop_column("front_points", "memory")
