"""Metrics, one file each; `METRICS` finds them by name."""

from lavi_bridge.metrics.base import METRICS, Distance, Metric, Score

__all__ = ["METRICS", "Distance", "Metric", "Score"]
