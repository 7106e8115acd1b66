"""Several checkpoints of a run, each with a hash of its content."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = "pk_run_checkpoints"
CHECKPOINTS = sa.table("run_checkpoints", sa.column("run_id"), sa.column("round"))


def upgrade() -> None:
    """Let a run have several; those that are there have no hash."""
    with op.batch_alter_table("run_checkpoints") as table:
        table.add_column(sa.Column("content_hash", sa.String, nullable=True))
        table.drop_constraint(KEY, type_="primary")
        table.create_primary_key(KEY, ["run_id", "round"])


def downgrade() -> None:
    """Keep the newest of each run, without its hash."""
    newer = CHECKPOINTS.alias()
    query = sa.select(newer.c.run_id).where(
        newer.c.run_id == CHECKPOINTS.c.run_id, newer.c.round > CHECKPOINTS.c.round
    )
    op.execute(CHECKPOINTS.delete().where(query.exists()))
    with op.batch_alter_table("run_checkpoints") as table:
        table.drop_constraint(KEY, type_="primary")
        table.create_primary_key(KEY, ["run_id"])
        table.drop_column("content_hash")
