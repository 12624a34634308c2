"""LaVi-Bridge in ComfyUI: a language model of your choice reads the prompt.

The nodes read folders that `lavi-bridge export BRIDGE --out FOLDER --form comfyui` wrote.
"""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    """What ComfyUI asks a pack for."""
    from comfy_api.latest import ComfyExtension, io

    from .folders import places
    from .nodes import nodes

    class LaViBridge(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return nodes(io, places)

    return LaViBridge()
