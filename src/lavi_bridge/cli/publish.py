"""`export` and `push`: a bridge for others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import Positional

from lavi_bridge.config import Dtype, Settings
from lavi_bridge.publish.options import PushConfig


@dataclass
class Export(Settings):
    """Write a bridge as a folder that runs without this package.

    light: adapter and LoRA; both base models are fetched from where they were published (peft).

    merged: all weights, LoRA in them; plain diffusers and the serving engines load it.

    stock: the image model's own pipeline class (Stable Diffusion, PixArt, Sana), the language model
    and the adapter in the place of its text encoder: ControlNets and community LoRA work as ever.

    comfyui: the language model with the adapter, and the image model's LoRA, for the nodes of our
    folder comfyui/ (Stable Diffusion 1.x and 2.x, SDXL, PixArt).
    """

    bridge: Positional[str]
    """Folder of a bridge or of its training run, or a Hub id."""
    out: Path
    """Folder to write; an earlier export there is replaced."""
    form: Literal["light", "merged", "stock", "comfyui"] = "merged"
    """What is written; see above."""
    dtype: Dtype | None = None
    """Precision of the weights that are written (unset: float32). In 16 bits a light LoRA that is
    merged rounds away; how much of it is said."""
    servers: bool = True
    """Name the pipeline by a string, as vLLM-Omni and SGLang want it; plain diffusers is then told
    `custom_pipeline=FOLDER`, too. Without, it finds the pipeline by itself."""
    language: str | None = None
    """Where the language model is now or was published, if not where it was in training."""
    vision: str | None = None
    """The same of the vision model."""


def export(args: list[str]) -> None:
    """Write a bridge for plain diffusers, serving engines or ComfyUI."""
    options = tyro.cli(Export, args=args, prog="lavi-bridge export")
    from lavi_bridge.bridge.bridge import Bridge
    from lavi_bridge.export import export_bridge
    from lavi_bridge.running.device import choose_dtype

    bridge = Bridge.load(
        options.bridge,
        language=options.language,
        vision=options.vision,
        dtype="float32",  # sums are made in it, and rounded once
        device="cpu",
    )
    dtype = None if options.dtype is None else choose_dtype(options.dtype, bridge.vision.device)
    done = export_bridge(
        bridge, options.out, form=options.form, dtype=dtype, servers=options.servers
    )
    print(f"'{done.folder}': {done.bytes / 1e6:,.1f} MB, form {done.form}, bridge {bridge.id}")
    for name, lost in done.lost.items():
        if lost > 0.01 and (done.form, name) == ("comfyui", "vision"):
            print(
                "note: where ComfyUI holds the vision model in float16, rounding changes what LoRA "
                f"adds to it by {lost:.0%} of its size; start it with --fp32-unet to keep it all"
            )
        elif lost > 0.01:
            print(
                f"note: rounding to {options.dtype} changed what LoRA adds to the {name} model by "
                f"{lost:.0%} of its size; float32 or form light keep it"
            )
    print(done.how())


def push(args: list[str]) -> None:
    """Publish a bridge on the Hugging Face Hub, with its card, pictures and scores."""
    options = tyro.cli(PushConfig, args=args, prog="lavi-bridge push")
    from lavi_bridge.publish.push import push
    from lavi_bridge.publish.source import size_of
    from lavi_bridge.show.tables import aligned

    done = push(options)
    print(aligned([(name, size_of(size)) for name, size in done.files.items()], "lr"))
    print(f"\n{len(done.files)} files, {size_of(sum(done.files.values()))}")
    if done.sent is None:
        print(f"nothing was sent: look into '{options.dry_run}', README.md first")
    elif done.sent.new:
        print(f"{done.sent.url} is at commit {done.sent.commit[:12]}")
    else:
        print(f"{done.sent.url} has all of this already; there is no new commit")
