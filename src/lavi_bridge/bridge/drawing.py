"""Pictures on disk: drawn from prompts, named so that no prompt can break a path, resumable."""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lavi_bridge.config import Sampling
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder, new_file
from lavi_bridge.running.progress import progress as bar
from lavi_bridge.show.output import whole
from lavi_bridge.version import __version__

if TYPE_CHECKING:
    from lavi_bridge.bridge.bridge import Bridge

KEY = "lavi-bridge"
"""Name of the text chunk in every PNG: a JSON object that tells how to draw it again."""


def file_name(index: int, prompt: str, record: dict[str, Any]) -> str:
    """`00007-a-red-circle-1f3a9c.png`: letters, digits and hyphens only, whatever the prompt.

    The end derives from all that makes the picture, so that another seed, setting or bridge never
    overwrites it.
    """
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].rstrip("-")
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:6]
    return f"{index:05d}-{words or 'prompt'}-{digest}.png"


def read_prompts(path: Path) -> list[str]:
    """Read a prompt file: one a line, blank lines skipped.

    Raises:
        BridgeError: the file is missing, is not UTF-8, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BridgeError(f"'{path}' is not UTF-8 text") from error
    except OSError as error:
        raise BridgeError(f"cannot read prompt file '{path}': {error.strerror}") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise BridgeError(f"'{path}' holds no prompts")
    return prompts


def made_by(bridge: Bridge) -> dict[str, Any]:
    """Which models draw: what a picture's record says of its origin.

    Other people's LoRA is told where there is some; records without it are as they always were.
    """
    loaded = [one.record for one in bridge.stacked]
    return {
        "bridge": bridge.id,
        "language": bridge.language.place.id,
        "vision": bridge.vision.place.id,
        "dtype": str(bridge.vision.dtype).removeprefix("torch."),
        **({"lora": loaded} if loaded else {}),
    }


def settings_of(bridge: Bridge, sampling: Sampling) -> dict[str, Any]:
    """Arguments of `Bridge.stream` that change a picture, with the model's own where unset.

    Strengths of 1 are left out: they are what pictures had before there were others.
    """
    vision = bridge.vision
    own = vision.size
    return {
        "steps": vision.default_steps if sampling.steps is None else sampling.steps,
        "guidance": vision.default_guidance if sampling.guidance is None else sampling.guidance,
        "negative": whole(sampling.negative),
        "height": sampling.height or own[0],
        "width": sampling.width or own[1],
        "scheduler": sampling.scheduler or vision.default_scheduler,
        **{name: float(scale) for name, scale in sampling.scales.items() if scale != 1},
    }


def draw(
    bridge: Bridge, prompts: Sequence[str], out: Path, sampling: Sampling, *, progress: bool = False
) -> Iterator[Path]:
    """Draw one PNG a prompt into `out` and yield its path; what is there already is kept.

    A picture counts as there if its file says that it was drawn by the same bridge from the same
    prompt, seed and settings. So an interrupted call, repeated, goes on where it stopped.
    """
    make_folder(out)
    identity = made_by(bridge) | {"version": __version__}
    settings = settings_of(bridge, sampling)
    jobs: list[tuple[Path, dict[str, Any]]] = []
    for index, prompt in enumerate(map(whole, prompts)):
        record = {"prompt": prompt, "seed": sampling.seed + index} | settings | identity
        jobs.append((out / file_name(index, prompt, record), record))
    missing = {path: record for path, record in jobs if read_record(path) != record}
    images = _with_bar(
        bridge.stream(
            [record["prompt"] for record in missing.values()],
            seed=[record["seed"] for record in missing.values()],
            batch_size=sampling.batch_size,
            **settings,
        ),
        len(missing),
        progress,
    )
    for path, record in jobs:
        if path in missing:
            save_png(next(images), path, record)
        yield path


def save_png(image: Image.Image, path: Path, record: dict[str, Any]) -> None:
    """Write a PNG atomically, with `record` inside."""
    with new_file(path) as scratch:
        scratch.write_bytes(as_png(image, record))


def as_png(image: Image.Image, record: dict[str, Any]) -> bytes:
    """A picture as a PNG file, with `record` inside."""
    info, file = PngInfo(), io.BytesIO()
    info.add_itxt(KEY, json.dumps(record, ensure_ascii=False))
    image.save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def read_record(path: Path) -> dict[str, Any] | None:
    """How a PNG was drawn; None if there is no such file, or it does not say."""
    try:
        with Image.open(path) as image:
            return json.loads(image.text[KEY])  # type: ignore[attr-defined]
    except (OSError, KeyError, AttributeError, ValueError, SyntaxError):
        return None


def _with_bar(images: Iterator[Image.Image], total: int, progress: bool) -> Iterator[Image.Image]:
    if not progress or not total:
        return images
    return iter(bar(images, total=total, desc="drawing", unit="image"))
