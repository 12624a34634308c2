"""The layouts and results of official benchmarks."""
