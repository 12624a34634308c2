"""The models of the Hub that pages name: their real configs to plan with, tiny ones to run with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge import testing
from lavi_bridge.files.locate import ZOO
from tests import real


@dataclass(frozen=True)
class Named:
    """A model of the Hub: what stands for it."""

    config: dict[str, Any] | Callable[[Path], Path] | None
    """A language model's config, or what writes an image model's; None where nobody plans."""
    tiny: str
    """A bundled model (`zoo:NAME`), or a family of `lavi_bridge.testing`."""


HUB = {
    "google-t5/t5-small": Named(real.T5_LARGE | real.T5_SMALL, "zoo:tiny-t5-small"),
    "google-t5/t5-base": Named(real.T5_LARGE | real.T5_BASE, "zoo:tiny-t5-base"),
    "google-t5/t5-large": Named(real.T5_LARGE, "zoo:tiny-t5-large"),
    "meta-llama/Llama-2-7b-hf": Named(real.LLAMA2_7B, "zoo:tiny-llama"),
    "meta-llama/Llama-2-7b-chat-hf": Named(None, "llama"),
    "Qwen/Qwen3-0.6B": Named(real.QWEN3_06B, "qwen3"),
    "Qwen/Qwen2.5-1.5B": Named(real.QWEN25_15B, "qwen2"),
    "Qwen/Qwen2.5-7B-Instruct": Named(None, "qwen2"),
    "CompVis/stable-diffusion-v1-4": Named(real.stable_diffusion, "zoo:tiny-sd"),
    "stabilityai/stable-diffusion-xl-base-1.0": Named(partial(real.today, name="sdxl"), "sdxl"),
    "black-forest-labs/FLUX.1-dev": Named(partial(real.today, name="flux-dev"), "flux-dev"),
    "Qwen/Qwen-Image": Named(partial(real.today, name="qwen-image"), "qwen-image"),
}
"""By Hub id. What runs or is planned with another one on a page needs a line here."""


ROOMY = {"num_hidden_layers": 6, "max_position_embeddings": 4096}
"""What pages ask of language models: layers to choose from, room for `expand`'s instruction."""


def write_configs(folder: Path) -> None:
    """Write the real configs into folders that are called like the models: `locate` looks there
    before it asks the Hub. Language models get a byte-level tokenizer."""
    for name, model in HUB.items():
        if callable(model.config):
            model.config(folder / name)
        elif model.config:
            real.language(folder / name, model.config)
            testing.make_tokenizer(folder / name)


def put_tiny(name: str, folder: Path, made: Path) -> None:
    """Link the tiny model that stands for one of the Hub into a folder; `made` keeps those that
    are not bundled."""
    tiny, place = HUB[name].tiny, folder / name
    if tiny.startswith("zoo:"):
        there = ZOO / tiny.removeprefix("zoo:")
    else:
        there = made / tiny
        if not there.exists() and tiny in testing.LANGUAGES:
            kind, settings = testing.LANGUAGES[tiny]
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(testing.LANGUAGES, tiny, (kind, settings | ROOMY))
                testing.make_language(there, tiny)
        elif not there.exists():
            testing.make_vision(there, tiny)
            if tiny in testing.ENCODERS:  # which a start without images reads
                testing.add_encoders(there, tiny)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(there)
