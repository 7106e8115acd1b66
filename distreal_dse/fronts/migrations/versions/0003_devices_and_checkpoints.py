"""Figures by device, work that was wasted, checkpoints, comparisons."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NEW_COLUMNS = ("wasted_macs", "missed", "bytes_down", "bytes_up", "accuracy_by_class")


def upgrade() -> None:
    """Add what rounds did not tell before; stored ones have none of it."""
    op.add_column("runs", sa.Column("comparison", sa.String, nullable=True))
    with op.batch_alter_table("run_rounds") as rounds:
        zero = sa.text("0")
        rounds.add_column(sa.Column("wasted_macs", sa.Double, nullable=False, server_default=zero))
        rounds.add_column(sa.Column("missed", sa.Integer, nullable=False, server_default=zero))
        for name in ("bytes_down", "bytes_up"):
            rounds.add_column(sa.Column(name, sa.BigInteger, nullable=False, server_default=zero))
        rounds.add_column(
            sa.Column("accuracy_by_class", sa.JSON, nullable=False, server_default="{}")
        )
    op.create_table(
        "run_devices",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("device", sa.Integer, nullable=False),
        sa.Column("device_class", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("training_macs", sa.Double, nullable=False),
        sa.Column("mini_batches", sa.Integer, nullable=False),
        sa.Column("mean_cost_share", sa.Double, nullable=True),
        sa.Column("over_budget", sa.Integer, nullable=False),
        sa.Column("bytes_down", sa.BigInteger, nullable=False),
        sa.Column("bytes_up", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "round", "device", name="pk_run_devices"),
        sa.ForeignKeyConstraint(
            ["run_id", "round"],
            ["run_rounds.run_id", "run_rounds.round"],
            name="fk_run_devices_run_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "run_checkpoints",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_checkpoints"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_checkpoints_run_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop the columns and tables, and with them what they hold."""
    op.drop_table("run_checkpoints")
    op.drop_table("run_devices")
    with op.batch_alter_table("run_rounds") as rounds:
        for name in NEW_COLUMNS:
            rounds.drop_column(name)
    with op.batch_alter_table("runs") as runs:
        runs.drop_column("comparison")
