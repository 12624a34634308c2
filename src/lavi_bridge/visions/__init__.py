"""Vision families: one small file each, found by the class that the checkpoint names."""

from importlib import import_module
from pkgutil import iter_modules

from lavi_bridge.visions.base import VISIONS, Vision, load_vision
from lavi_bridge.visions.noise.process import Noised

__all__ = ["VISIONS", "Noised", "Vision", "load_vision"]

for _module in iter_modules(__path__):  # each family registers itself
    import_module(f"{__name__}.{_module.name}")
