"""T2I-CompBench's metrics."""
