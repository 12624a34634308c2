"""Adapters between a language and a vision model: one small file each."""

from importlib import import_module
from pkgutil import iter_modules

from lavi_bridge.adapters.base import ADAPTERS, Adapter

__all__ = ["ADAPTERS", "Adapter"]

for _module in iter_modules(__path__):  # each adapter registers itself
    import_module(f"{__name__}.{_module.name}")
