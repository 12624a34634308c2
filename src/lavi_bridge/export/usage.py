"""How an exported folder is used, in the words of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavi_bridge.bridge.card import PROMPT

DIFFUSERS = """\
```python
from diffusers import {kind}

pipe = {kind}.from_pretrained({arguments})
pipe(prompt="{prompt}").images[0].save("picture.png")
```

{note}"""
COMFYUI = """\
Put {place} into ComfyUI's `models/lavi_bridges`, and choose it in the nodes of LaVi-Bridge."""
NEEDS = "Needs diffusers >= 0.37, transformers >= 5.14"
NOTES = {
    "light": f"Base models that were published are fetched from there. {NEEDS} and peft.",
    "merged": f"LoRA is in the weights. {NEEDS}.",
    "stock": f"Its text encoder is a language model with the adapter behind it. {NEEDS}.",
}
PARTS = {
    "light": "Here are the adapter between them and their LoRA layers.",
    "merged": "Here are both, with their LoRA layers in the weights, and the adapter between them.",
}
PARTS |= {"stock": PARTS["merged"], "comfyui": PARTS["light"]}
"""What of the three parts is in a folder, by form."""


def usage(
    form: str,
    pipeline: str,
    place: str,
    *,
    servers: bool = True,
    call: Mapping[str, Any] | None = None,
) -> str:
    """Markdown on how an export is loaded with plain diffusers.

    Args:
        pipeline: the family's class.
        place: the folder, or its name on the Hub.
        servers: whether the pipeline is named by a string.
        call: arguments without which the stock pipeline changes prompts.
    """
    if form == "comfyui":
        return COMFYUI.format(place=place)
    custom = f'custom_pipeline="{place}", ' * (servers and form != "stock")
    told = "It runs the code of this repository: read it first. " + NOTES[form]
    for name, value in (call or {}).items():
        told += f" Call it with `{name}={value}`: the bridge reads the prompt alone."
    return DIFFUSERS.format(
        kind=pipeline if form == "stock" else "DiffusionPipeline",
        arguments=f'"{place}", {custom}trust_remote_code=True',
        prompt=PROMPT,
        note=told,
    )
