"""Language families: one small file each, found by the checkpoint's own `model_type`."""

from importlib import import_module
from pkgutil import iter_modules

from lavi_bridge.languages.base import LANGUAGES, Language, Tokens, load_language

__all__ = ["LANGUAGES", "Language", "Tokens", "load_language"]

for _module in iter_modules(__path__):  # each family registers itself
    import_module(f"{__name__}.{_module.name}")
