"""Who carries a search out."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; a search gets its row when it is begun, or goes on."""
    op.create_table(
        "searches",
        sa.Column("name", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=True),
        sa.Column("owned_since", sa.String, nullable=True),
        sa.Column("heartbeat", sa.Double, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_searches"),
    )


def downgrade() -> None:
    """Drop the table; the trials of searches are in Optuna's."""
    op.drop_table("searches")
