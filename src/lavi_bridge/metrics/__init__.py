"""Metrics, one file each; `METRICS` finds them by name."""

from importlib import import_module
from pkgutil import iter_modules

from lavi_bridge.metrics.base import METRICS, Distance, Metric, Score

__all__ = ["METRICS", "Distance", "Metric", "Score"]

for _module in iter_modules(__path__):  # each metric registers itself
    import_module(f"{__name__}.{_module.name}")
