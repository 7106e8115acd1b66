"""What is searched: one file per study. Copy one to write your own; only the public API is used."""
