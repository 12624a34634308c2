"""The model card of a bridge, from its record: README.md of the folder, and on the Hub.

What only the Hub needs (scores, pictures, a licence of its own) is handed in, so that the card of a
saved bridge and that of a published one are one text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place, hub_name

SIDES = "language", "vision"
TAGS = ["lavi-bridge", "text-to-image", "lora"]
UNKNOWN = "not stated beside the weights; see where they came from"
ABOUT = """\
A [LaVi-Bridge](https://arxiv.org/abs/2403.07860) between a language model and an image model.
{parts}"""
PARTS = "Both stay as they were; here are the adapter between them and their LoRA layers."
USE = """\
```python
from lavi_bridge import Bridge

bridge = Bridge.load("{place}")
bridge.generate(["{prompt}"])[0].save("picture.png")
```"""
PROMPT = "a red circle left of a blue square"


def model_card(
    record: Mapping[str, Any],
    *,
    parts: str = PARTS,
    use: str = "",
    pictures: str = "",
    scores: str = "",
    licence: str = "",
    training: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """README.md of a bridge: what it joins, how to use it, and the licences of both models.

    Args:
        record: its `bridge.json`.
        parts: what of the three parts is here.
        use: how it is loaded; from a folder by default.
        pictures: a section of its own, in Markdown; so are `scores`.
        licence: what is said below the licences of both models; `training` below the settings.
        metadata: more of it, for the Hub, or other values.
    """
    from huggingface_hub import ModelCardData

    bases = [record[side]["id"] for side in SIDES]
    published = [name for base in bases if (name := hub_name(base))]
    values: dict[str, Any] = {
        "library_name": "lavi-bridge",
        "pipeline_tag": "text-to-image",
        "base_model": published or None,
        "base_model_relation": "adapter" if published else None,
        "tags": TAGS,
    }
    head = ModelCardData(**values | dict(metadata or {}))
    told = "".join(f"\n{key}: {record[key]}" for key in ("layers", "template") if key in record)
    masked = "masked" if record["masked"] else "read as it is"
    sections = [
        f"---\n{head.to_yaml()}\n---\n# {bases[0]} × {bases[1]}",
        ABOUT.format(parts=parts),
        use or USE.format(place="this folder", prompt=PROMPT),
        pictures,
        _parameters(record)
        + f"It reads prompts of up to {record['tokens']} tokens, padding {masked}.{told}",
        scores,
        "## Base models and their licences\n" + "\n".join(_base(record, side) for side in SIDES),
        licence,
        "## Training\n" + (_training(record["training"]) or "Not trained yet."),
        training,
    ]
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def _parameters(record: Mapping[str, Any]) -> str:
    counts = record.get("parameters")
    if not counts:
        return ""
    rows = "".join(f"| {name} | {count:,} |\n" for name, count in counts.items())
    return f"## Parts\n| part | trained parameters |\n|---|---|\n{rows}\n"


def _base(record: Mapping[str, Any], side: str) -> str:
    base = record[side]
    name = hub_name(base["id"])
    shown = f"[{base['id']}](https://huggingface.co/{name})" if name else base["id"]
    return f"- {side}: {shown}: {base.get('licence') or UNKNOWN}"


def _training(summary: Mapping[str, Any]) -> str:
    return "\n".join(
        f"- {key}: {value}"
        for key, value in summary.items()
        if not isinstance(value, dict)  # such as the warm start's report: it is in bridge.json
    )


def stated_licence(place: Place) -> str | None:
    """The licence that a base model's own card states, if it can be had and read; its name where it
    is none of the Hub's."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        path = replace(place, subfolder="").file("README.md")
        card = ModelCard.load(path, ignore_metadata_errors=True) if path else None
        stated = card.data.get("license") if card else None
        if card and stated == "other":
            stated = card.data.get("license_name") or stated
    except (BridgeError, OSError, ValueError, YAMLError):
        stated = None  # a card must never stand in the way of saving
    return str(stated) if stated else None
