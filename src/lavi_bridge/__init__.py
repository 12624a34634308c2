"""LaVi-Bridge: join any pre-trained language model to any pre-trained image-diffusion model.

The method is that of "Bridging Different Language Models and Generative Vision Models for
Text-to-Image Generation" (ECCV 2024, arXiv 2403.07860). Importing this package imports no torch:
the public names are loaded when first used.
"""

import logging
from typing import TYPE_CHECKING, Any

from lavi_bridge.version import __version__

if TYPE_CHECKING:
    from lavi_bridge.bridge.bridge import Bridge
    from lavi_bridge.errors import BridgeError
    from lavi_bridge.recipes import RECIPES, Recipe
    from lavi_bridge.text import Text
    from lavi_bridge.train.warm_start.phase import warm_start

__all__ = ["RECIPES", "Bridge", "BridgeError", "Recipe", "Text", "__version__", "warm_start"]

# peft loads bitsandbytes where it is installed, which then tells of every cast
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

_HOMES = {
    "Bridge": "lavi_bridge.bridge.bridge",
    "BridgeError": "lavi_bridge.errors",
    "RECIPES": "lavi_bridge.recipes",
    "Recipe": "lavi_bridge.recipes",
    "Text": "lavi_bridge.text",
    "warm_start": "lavi_bridge.train.warm_start.phase",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lavi_bridge' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
