"""What a folder may ask for: what the export writes, and nothing else.

transformers and diffusers run code, fetch it or ask on the keyboard where a config says so. A
folder may come from anybody, so that what is loaded, and how, is taken from these lists alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BASE, LANGUAGE = "base.json", "language"
MODULE = re.compile(
    r"transformers\.models\.(\w+\.)+modeling_\w+"
    r"|diffusers\.pipelines\.latent_diffusion\.pipeline_latent_diffusion",
    re.ASCII,
)
"""Where classes of language models are; the second one has LDMBert's."""
CLASS = re.compile(r"[A-Za-z]\w*", re.ASCII)
OPTIONS: dict[str, Any] = {"add_pooling_layer": False}
"""Arguments of a model's `from_pretrained` that the families have, and their values."""
NOTHING: dict[str, tuple[Any, ...]] = {
    "id": (None,),
    "revision": (None,),
    "part": ("", None),
    "subfolder": ("", None),
}
"""Of `base.json` what says that the whole model lies right here."""
ENDINGS = {".json", ".safetensors", ".txt", ".model", ".spm", ".codes", ".jinja"}
"""Configs, weights, vocabularies, and a chat's template, which runs nothing."""
ATTENTION = (None, "eager", "sdpa")
"""Those that transformers has itself; others it fetches from the Hub and runs."""
CONFIG: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("attn_implementation", "_attn_implementation"), ATTENTION),
    **dict.fromkeys(
        (
            *("auto_map", "custom_pipeline", "trust_remote_code", "quantization_config"),
            *("experts_implementation", "_experts_implementation", "transformers_weights"),
            *("use_kernels", "kernel_config", "use_pretrained_backbone"),
        ),
        (None, False),
    ),
}
"""Keys of configs that bring code or weights from elsewhere, and values by which they do not."""


def refusal(text: Path) -> str | None:
    """Why the text half in a folder is not loaded; None where it asks for nothing odd.

    Raises:
        OSError, ValueError, KeyError, TypeError, RecursionError: it is damaged.
    """
    told = json.loads((text / LANGUAGE / BASE).read_text(encoding="utf-8"))
    module, name, options = told["module"], told["class"], dict(told["options"])
    if not (isinstance(module, str) and MODULE.fullmatch(module)):
        return f"asks for code of '{module}', which is not run"
    if not (isinstance(name, str) and CLASS.fullmatch(name)):
        return f"asks for a class '{name}', which is none"
    for key, value in options.items():
        if key not in OPTIONS or value is not OPTIONS[key]:
            return f"asks for {key}={value!r} in {BASE}, which no export does"
    for key, known in NOTHING.items():
        if not any(told[key] is value or told[key] == value for value in known):
            return f"asks for what lies elsewhere, which is not fetched: {key}={told[key]!r}"
    return _odd_file(text) or _odd_config(text)


def _odd_file(text: Path) -> str | None:
    """Which file no export in this form has."""
    for path in sorted(text.rglob("*")):
        name = path.relative_to(text).as_posix()
        if name in (f"{LANGUAGE}/lora", f"{LANGUAGE}/adapter_config.json"):
            return f"has '{name}', which names a model elsewhere"
        hidden = path.name.startswith(".")  # of the system, say; no library looks for such
        if path.suffix not in ENDINGS and not hidden and not path.is_dir():
            return f"has '{name}', which no export has"
    return None


def _odd_config(text: Path) -> str | None:
    """Which key of a config would bring something that is not in the folder."""
    for path in sorted(text.rglob("*.json")):
        name = path.relative_to(text).as_posix()
        if path.name.endswith(".index.json"):
            files = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
            if odd := [file for file in files if Path(file).name != file]:
                return f"asks in '{name}' for what lies elsewhere: '{odd[0]}'"
        elif "config" in path.name:
            for key, value in _pairs(json.loads(path.read_text(encoding="utf-8"))):
                if key in CONFIG and not any(value is one or value == one for one in CONFIG[key]):
                    return f"asks in '{name}' for {key}={value!r}, which is not run"
    return None


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON value with what it holds, however deep."""
    if isinstance(value, dict):
        yield from value.items()
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _pairs(each)
