"""Kernels that one `predict` launches in sampling, counted at the real sizes on the meta device.

    python benchmarks/launches.py                        # this tree
    PYTHONPATH=OTHER/src python benchmarks/launches.py   # another one laid out like it

Models in bfloat16 under LoRA of rank 32 in float32, as `generate` runs them on a GPU. No weights,
no GPU, no times: small batches are bound by launching, so the number says something all the same.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tests import real

from lavi_bridge import Bridge
from lavi_bridge.bridge import lora
from lavi_bridge.text import Text


def outlined(folder: Path, name: str) -> Bridge:
    """The pair without weights, frozen parts in bfloat16."""
    write = real.stable_diffusion if name == "SD 1.4" else real.pixart
    language = real.language(folder / "language", real.T5_LARGE)
    bridge = Bridge.outline(language, write(folder / name))
    for parameter in bridge.vision.backbone.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)
    return bridge.eval()


@torch.no_grad()
def kernels(bridge: Bridge) -> list[str]:
    """Names of what one `predict` launches."""
    vision = bridge.vision
    x_t = torch.empty(2, *vision.latent_shape(512, 512), device="meta")
    mask = torch.ones(2, vision.tokens, device="meta", dtype=torch.long) if vision.masks else None
    text = Text(torch.empty(2, vision.tokens, vision.text_width, device="meta"), mask)
    with real.Kernels() as counted:
        vision.predict(x_t, torch.empty((), device="meta"), text)
    return counted.names


def main() -> None:
    print("| `predict`, bfloat16 | kernels | of them casts | × without LoRA |\n|---|---|---|---|")
    for name in ("SD 1.4", "PixArt-α 512"):
        with tempfile.TemporaryDirectory() as folder:
            bridge = outlined(Path(folder), name)
        backbone = bridge.vision.backbone
        with lora.disabled(backbone):
            without = kernels(bridge)
        rows = {"without LoRA": without, "with its branches": kernels(bridge)}
        with lora.fused(backbone):
            rows["while sampling"] = kernels(bridge)
        for row, names in rows.items():
            casts = names.count("_to_copy")
            ratio = len(names) / len(without)
            print(f"| {name}, {row} | {len(names):,} | {casts} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
