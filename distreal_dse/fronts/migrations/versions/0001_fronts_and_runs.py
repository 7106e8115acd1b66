"""Fronts, their points, verification runs, and federated runs with their rounds."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "fronts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("study", sa.String, nullable=False),
        sa.Column("model_fingerprint", sa.String, nullable=False),
        sa.Column("cost_metric", sa.String, nullable=False),
        sa.Column("device", sa.JSON, nullable=False),
        sa.Column("reference_cost", sa.Double, nullable=False),
        sa.Column("hypervolume", sa.Double, nullable=False),
        sa.Column("groups", sa.JSON, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("content_hash", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_fronts"),
        sa.UniqueConstraint("name", "version", name="uq_fronts_name_version"),
    )
    op.create_table(
        "front_points",
        sa.Column("front_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("rates", sa.JSON, nullable=False),
        sa.Column("kept_counts", sa.JSON, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("convergence", sa.Double, nullable=False),
        sa.Column("standard_error", sa.Double, nullable=False),
        sa.Column("replicates", sa.Integer, nullable=False),
        sa.Column("accuracy", sa.Double, nullable=False),
        sa.Column("uniform", sa.Boolean, nullable=False),
        sa.Column("trial", sa.Integer, nullable=True),
        sa.PrimaryKeyConstraint("front_id", "position", name="pk_front_points"),
        sa.ForeignKeyConstraint(
            ["front_id"], ["fronts.id"], name="fk_front_points_front_id", ondelete="CASCADE"
        ),
    )
    op.create_table(
        "verifications",
        sa.Column("search", sa.String, nullable=False),
        sa.Column("kept_counts_key", sa.String, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("replicate", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("loss_gain", sa.Double, nullable=False),
        sa.Column("accuracy", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(
            "search", "kept_counts_key", "seed", "replicate", name="pk_verifications"
        ),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study", sa.String, nullable=False),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("front_label", sa.String, nullable=True),
        sa.Column("front_hash", sa.String, nullable=True),
        sa.Column("model_fingerprint", sa.String, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("finished", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_table(
        "run_rounds",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("round", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("virtual_seconds", sa.Double, nullable=False),
        # Empty in rounds that weren't evaluated.
        sa.Column("accuracy", sa.Double, nullable=True),
        sa.Column("loss", sa.Double, nullable=True),
        sa.Column("training_macs", sa.Double, nullable=False),
        sa.Column("mini_batches", sa.Integer, nullable=False),
        # Empty in round 0, which trains nothing.
        sa.Column("mean_cost_share", sa.Double, nullable=True),
        sa.Column("over_budget", sa.Integer, nullable=False),
        sa.Column("rejected", sa.Integer, nullable=False),
        sa.Column("cohort", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "round", name="pk_run_rounds"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_rounds_run_id", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop the tables, and with them all fronts and runs."""
    for table in ("run_rounds", "runs", "verifications", "front_points", "fronts"):
        op.drop_table(table)
