"""Measured latencies of dropout vectors."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; nothing that is stored changes."""
    op.create_table(
        "latencies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study", sa.String, nullable=False),
        sa.Column("model_fingerprint", sa.String, nullable=False),
        sa.Column("kept_counts", sa.JSON, nullable=False),
        sa.Column("device", sa.JSON, nullable=False),
        sa.Column("device_hash", sa.String, nullable=False),
        sa.Column("batch_size", sa.Integer, nullable=False),
        sa.Column("threads", sa.Integer, nullable=False),
        sa.Column("latency", sa.Double, nullable=False),
        sa.Column("seconds_low", sa.Double, nullable=False),
        sa.Column("seconds_median", sa.Double, nullable=False),
        sa.Column("seconds_high", sa.Double, nullable=False),
        sa.Column("ratio_low", sa.Double, nullable=False),
        sa.Column("ratio_median", sa.Double, nullable=False),
        sa.Column("ratio_high", sa.Double, nullable=False),
        sa.Column("repetitions", sa.Integer, nullable=False),
        sa.Column("measured_at", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_latencies"),
    )


def downgrade() -> None:
    """Drop the table, and with it all measurements."""
    op.drop_table("latencies")
