"""Performance and quality figures; each module runs by itself: ``python -m benchmarks.NAME``."""
