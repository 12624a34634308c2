"""Metrics, one file each, also in the folders below; `METRICS` finds them by name."""

from importlib import import_module
from pkgutil import walk_packages

from lavi_bridge.metrics.base import METRICS, Distance, Metric, Score

__all__ = ["METRICS", "Distance", "Metric", "Score"]

for _module in walk_packages(__path__, f"{__name__}."):  # each metric registers itself
    import_module(_module.name)
