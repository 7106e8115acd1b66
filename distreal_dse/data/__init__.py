"""Mini-batches of a data set, and what a full network is worth on it."""
