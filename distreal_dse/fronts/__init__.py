"""The Pareto front: a value, its database, its exchange file and its lookup table.

The way through this room: a search builds a `Front` and gives it to `save_front`; a device gets it
by `find_front`, from the database or from an exchange file, and asks a `LookupTable` before each
mini-batch. Nothing here imports the search, and Alembic is imported only to migrate a database.
"""

from distreal_dse.fronts._database import (
    SCHEMA_VERSION,
    ConflictError,
    ConnectionLostError,
    check_writable,
    engine_options,
    explained,
    has_secret,
    is_connection_lost,
    make_tables,
    normalise_url,
    open_database,
    reading,
    shown_storage,
    writing,
)
from distreal_dse.fronts._exchange import SCHEMA, export_front, import_front
from distreal_dse.fronts._front import (
    COST_UNITS,
    Front,
    FrontGroup,
    FrontPoint,
    check_front_name,
    curve_hypervolume,
    hypervolume,
    kept_counts_key,
    non_dominated,
    useful_front,
    utc_now,
)
from distreal_dse.fronts._latencies import StoredLatency, load_latencies, save_latencies
from distreal_dse.fronts._layers import (
    FIXED,
    LAYERS,
    ChannelCounts,
    LayerCost,
    channel_counts,
    layer_costs,
)
from distreal_dse.fronts._lookup import BudgetTooSmallError, LookupTable
from distreal_dse.fronts._outages import not_waiting, outlasting_restarts, reopen_database
from distreal_dse.fronts._savings import (
    MeanSaving,
    MeasuredVector,
    Saving,
    equal_cost_of,
    mean_saving,
    savings,
)
from distreal_dse.fronts._schema import Base
from distreal_dse.fronts._store import (
    FrontSummary,
    find_front,
    list_fronts,
    load_front,
    load_verifications,
    save_front,
    save_verification,
    verification_keys,
)

__all__ = [
    "COST_UNITS",
    "FIXED",
    "LAYERS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Base",
    "BudgetTooSmallError",
    "ChannelCounts",
    "ConflictError",
    "ConnectionLostError",
    "Front",
    "FrontGroup",
    "FrontPoint",
    "FrontSummary",
    "LayerCost",
    "LookupTable",
    "MeanSaving",
    "MeasuredVector",
    "Saving",
    "StoredLatency",
    "channel_counts",
    "check_front_name",
    "check_writable",
    "curve_hypervolume",
    "engine_options",
    "explained",
    "equal_cost_of",
    "export_front",
    "find_front",
    "has_secret",
    "hypervolume",
    "import_front",
    "is_connection_lost",
    "kept_counts_key",
    "layer_costs",
    "list_fronts",
    "load_front",
    "load_latencies",
    "load_verifications",
    "make_tables",
    "mean_saving",
    "non_dominated",
    "normalise_url",
    "not_waiting",
    "open_database",
    "outlasting_restarts",
    "reading",
    "reopen_database",
    "save_front",
    "save_latencies",
    "save_verification",
    "shown_storage",
    "savings",
    "verification_keys",
    "useful_front",
    "utc_now",
    "writing",
]
