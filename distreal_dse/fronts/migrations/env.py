"""Run by Alembic; the caller passes its connection and owns the transaction."""

from alembic import context

from distreal_dse.fronts._database import VERSION_TABLE
from distreal_dse.fronts._schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
