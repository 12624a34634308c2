"""Bridges between tiny models, exported, and the pictures that others should draw with them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lavi_bridge import Bridge
from lavi_bridge.export import Form, export_bridge
from tests.visions import checks

Tiny = Callable[[str], Path]
FAMILIES = ("sd", "sdxl", "sd3", "flux-dev", "pixart-alpha", "sana", "qwen-image")
STOCK = ("sd", "pixart-alpha", "sana")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def trained(
    language: Path | str, vision: Path | str, *, loud: bool = True, **options: Any
) -> Bridge:
    """A bridge whose every trained part does something.

    Args:
        loud: enlarge what carries the text, without which it moves a random model's picture little.
    """
    bridge = Bridge.connect(language, vision, rank=4, device="cpu", **options)
    checks.train_a_little(bridge)
    if loud:
        checks.make_loud(bridge)
    return bridge


def published(home: Path, name: str, folder: Path) -> None:
    """Put a model into a Hub cache as a download of `me/NAME` would have."""
    repository = home / "hub" / f"models--me--{name}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def options_of(bridge: Bridge, form: str) -> dict[str, Any]:
    """What makes an exported pipeline draw as `checks.pictures` does."""
    options: dict[str, Any] = {"num_inference_steps": checks.STEPS}
    options |= bridge.vision.pipeline_guidance(checks.GUIDANCE)
    if form == "stock" and bridge.vision.masks:
        options["height"], options["width"] = bridge.vision.size
        options["use_resolution_binning"] = False  # the sizes of tiny models are in no table
        options |= bridge.vision.stock_text or {}
    return options


def job(bridge: Bridge, folder: Path, form: Form, *, servers: bool = True) -> dict[str, Any]:
    """Export a bridge and say what should be drawn with the folder."""
    export_bridge(bridge, folder, form=form, servers=servers)
    return {
        "name": folder.name,
        "folder": str(folder),
        "servers": servers and form != "stock",
        "prompts": list(checks.PROMPTS),
        "seed": checks.SEED,
        "options": options_of(bridge, form),
        "expected": checks.pictures(bridge).tolist(),
    }


def write(jobs: Iterator[dict[str, Any]], path: Path) -> int:
    """Write jobs as lines; return how many."""
    lines = [json.dumps(one) for one in jobs]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(lines)
