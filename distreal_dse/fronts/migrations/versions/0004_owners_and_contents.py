"""Who carries a run out, from what, why it failed; one run of a kind in a comparison."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEX = "uq_runs_comparison_strategy_seed"
RUNS = sa.table(
    "runs",
    sa.column("id", sa.Integer),
    sa.column("comparison", sa.String),
    sa.column("strategy", sa.String),
    sa.column("seed", sa.BigInteger),
    sa.column("finished", sa.Boolean),
)
ROUNDS = sa.table("run_rounds", sa.column("run_id", sa.Integer))


def upgrade() -> None:
    """Add the columns; runs that a comparison has twice leave it, and are kept.

    SQLite would copy the table for a constraint, and drop the old one with the rounds of all runs:
    an index does the same.
    """
    op.add_column("runs", sa.Column("owner", sa.String, nullable=True))
    op.add_column("runs", sa.Column("owned_since", sa.String, nullable=True))
    op.add_column("runs", sa.Column("heartbeat", sa.Double, nullable=True))
    op.add_column("runs", sa.Column("failure", sa.String, nullable=True))
    op.add_column("runs", sa.Column("contents", sa.JSON, nullable=False, server_default="{}"))
    _take_doubles_out()
    op.create_index(INDEX, "runs", ["comparison", "strategy", "seed"], unique=True)


def _take_doubles_out() -> None:
    """Of several with the same strategy and seed, a finished one stays, and the longest."""
    rounds = sa.func.count(ROUNDS.c.run_id)
    query = (
        sa.select(RUNS.c.id, RUNS.c.comparison, RUNS.c.strategy, RUNS.c.seed)
        .join(ROUNDS, ROUNDS.c.run_id == RUNS.c.id, isouter=True)
        .where(RUNS.c.comparison.is_not(None))
        .group_by(RUNS.c.id, RUNS.c.comparison, RUNS.c.strategy, RUNS.c.seed, RUNS.c.finished)
        .order_by(RUNS.c.finished.desc(), rounds.desc(), RUNS.c.id)
    )
    kept = set()
    for run_id, *key in op.get_bind().execute(query).all():
        if tuple(key) in kept:
            op.execute(RUNS.update().where(RUNS.c.id == run_id).values(comparison=None))
        kept.add(tuple(key))


def downgrade() -> None:
    """Drop the columns and the index, and with them what they hold."""
    op.drop_index(INDEX, "runs")
    for name in ("owner", "owned_since", "heartbeat", "failure", "contents"):
        op.drop_column("runs", name)
