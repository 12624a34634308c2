"""Sample pictures of a card with their prompts: from an evaluation, or drawn now."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.drawing import as_png, made_by, read_prompts, read_record, settings_of
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import ZOO_PREFIX
from lavi_bridge.files.private import without_folders
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.publish.scores import Evaluated, settings_told
from lavi_bridge.publish.source import Source
from lavi_bridge.running.blocks import compile_sampling
from lavi_bridge.running.progress import progress as bar
from lavi_bridge.show.output import whole
from lavi_bridge.show.tables import escaped, markdown
from lavi_bridge.version import __version__

PROMPTS = (
    "a red apple on a blue plate beside an open window",
    "two cats asleep on a wooden bench, and a third that watches them",
    "a lighthouse in a storm at night, oil painting",
    "a street after the rain, seen from above, with one yellow umbrella",
)
IN_SHAPES = (
    "a red circle left of a blue square",
    "a striped green triangle",
    "two yellow stars",
    "a purple square below a red triangle",
)
"""For the bundled image models, which know nothing else."""
LEAST = 192
"""Pixels: smaller pictures are enlarged without smoothing, so that their own can be seen."""
ACROSS = 4


@dataclass(frozen=True)
class Sample:
    """A picture that a bridge has drawn."""

    prompt: str
    seed: int | None
    png: bytes


@dataclass(frozen=True)
class Samples:
    """Pictures, and how all of them were drawn."""

    pictures: list[Sample]
    how: str

    @property
    def files(self) -> dict[str, bytes]:
        return {_file(i): sample.png for i, sample in enumerate(self.pictures)}

    @property
    def widget(self) -> list[dict[str, Any]]:
        """For the head of the card: what the Hub shows as examples."""
        return [
            {"text": sample.prompt, "output": {"url": _file(i)}}
            for i, sample in enumerate(self.pictures)
        ]

    def section(self) -> str:
        """Markdown: the pictures in rows, each above its prompt and seed."""
        cells = []
        for i, sample in enumerate(self.pictures):
            seed = "" if sample.seed is None else f" (seed {sample.seed})"
            text = escaped(sample.prompt)
            cells.append((f"![{text}]({_file(i)})", f"{text}{seed}"))
        rows = [cells[start : start + ACROSS] for start in range(0, len(cells), ACROSS)]
        tables = [markdown([top for top, _ in row], [[below for _, below in row]]) for row in rows]
        return "\n\n".join([f"## Pictures\nOne picture a prompt; {self.how}.", *tables])


def samples_of(config: PushConfig, source: Source, evaluated: Evaluated | None) -> Samples | None:
    """Sample pictures, from the evaluation where there is one; None where none are asked for.

    Raises:
        BridgeError: the models cannot be loaded, or a picture cannot be read.
    """
    if not config.samples:
        return None
    if evaluated is not None and config.prompts is None:
        return _found(evaluated, config.samples, source)
    if source.form is not None:
        if config.prompts is not None:
            raise BridgeError(
                "an export is not drawn with here; leave --prompts out, and give the --evaluation "
                "of its bridge for pictures"
            )
        return None
    return _drawn(config, source, _prompts(config, source)[: config.samples])


def _found(evaluated: Evaluated, count: int, source: Source) -> Samples:
    pictures = []
    for prompt, seed, path in evaluated.pictures[:count]:
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
            raise BridgeError(f"'{path}' of the evaluation cannot be read as a picture") from error
        record = without_folders(read_record(path) or {}, source.moved)
        pictures.append(Sample(prompt, seed, as_png(_enlarged(image), record)))
    return Samples(pictures, settings_told(evaluated.settings))


def _drawn(config: PushConfig, source: Source, prompts: Sequence[str]) -> Samples:
    bridge = _load(config, source)
    compile_sampling(bridge.vision.backbone, config.sampling.compile)
    settings = settings_of(bridge, config.sampling)
    seeds = [config.sampling.seed + i for i in range(len(prompts))]
    images = bridge.stream(prompts, seed=seeds, batch_size=config.sampling.batch_size, **settings)
    if sys.stderr.isatty():
        images = iter(bar(images, total=len(prompts), desc="drawing", unit="image"))
    made = without_folders(made_by(bridge) | {"version": __version__}, source.moved)
    pictures = []
    for prompt, seed, image in zip(prompts, seeds, images, strict=True):
        record = {"prompt": prompt, "seed": seed} | settings | made
        pictures.append(Sample(prompt, seed, as_png(_enlarged(image), record)))
    return Samples(pictures, settings_told(settings))


def _load(config: PushConfig, source: Source) -> Bridge:
    """The bridge, with its base models where they are on this machine, else from the Hub."""
    gone = {
        side: given
        for side in ("language", "vision")
        if (given := getattr(config, side)) and not Path(source.record[side]["id"]).exists()
    }
    try:
        return Bridge.load(
            source.folder,
            language=gone.get("language"),
            vision=gone.get("vision"),
            dtype=config.dtype,
            device=config.device,
            trust_remote_code=config.trust_remote_code,
        )
    except BridgeError as error:
        raise BridgeError(f"no sample pictures: {error} (--samples 0 sends none)") from error


def _prompts(config: PushConfig, source: Source) -> list[str]:
    if config.prompts is not None:
        return [whole(prompt) for prompt in read_prompts(config.prompts)]
    if source.run is not None and (settings := source.run / "config.json").is_file():
        kept = json.loads(settings.read_text(encoding="utf-8")).get("sample_prompts")
        if kept:
            return [str(prompt) for prompt in kept]
    bundled = source.record["vision"]["id"].startswith(ZOO_PREFIX)
    return list(IN_SHAPES if bundled else PROMPTS)


def _enlarged(image: Image.Image) -> Image.Image:
    times = -(-LEAST // min(image.size))
    if times == 1:
        return image
    size = image.width * times, image.height * times
    return image.resize(size, Image.Resampling.NEAREST)


def _file(index: int) -> str:
    return f"samples/{index:02d}.png"
