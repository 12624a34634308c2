"""The images of an evaluation: drawn with a record of each, or found in a folder.

Image i depends on its seed alone. Images are drawn batch by batch, and a batch counts when all of
it is on disk and noted: so one that was stopped is drawn again with the very same neighbours, and
any number of processes, or of interruptions, gives the same images.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.drawing import save_png
from lavi_bridge.config import Sampling
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import make_folder
from lavi_bridge.files.journal import Journal
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.running import claims
from lavi_bridge.running.device import processes
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import stopping

MANIFEST = "manifest.jsonl"
SETTINGS = "settings.json"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Picture:
    """One image to draw."""

    prompt: Prompt
    number: int
    """Its number among the prompt's images, from 0."""
    seed: int

    @property
    def file(self) -> str:
        """Its name, whatever is in the prompt."""
        return f"{self.prompt.id}_{self.number}.png"


def jobs_of(prompts: Sequence[Prompt], images: int, seed: int) -> list[Picture]:
    """All images of a suite; image k of prompt n has the seed `seed + n * images + k`."""
    return [
        Picture(prompt, number, seed + index * images + number)
        for index, prompt in enumerate(prompts)
        for number in range(images)
    ]


def draw(
    bridge: Bridge,
    jobs: Sequence[Picture],
    folder: Path,
    sampling: Sampling,
    *,
    identity: dict[str, Any],
    suffix: str = "",
    name: str = "",
) -> int:
    """Draw what is missing of the jobs; return how many images that were.

    Under torchrun each process draws its part of the batches; the caller waits for the others and
    then has one of them call `finish`.

    Args:
        identity: what the images depend on beside prompt and seed. Images of anything else in
            `folder` are refused.

    Raises:
        BridgeError: `folder` holds images of another bridge or other settings, or it was stopped
            (what is drawn is kept).
    """
    rank, world = processes()
    make_folder(folder / "images")
    claim(folder, identity)
    done = drawn(folder)
    size = sampling.batch_size
    batches = [jobs[start : start + size] for start in range(0, len(jobs), size)][rank::world]
    todo = [batch for batch in batches if any(job.file not in done for job in batch)]
    journal = Journal(folder / MANIFEST, rank)
    options = {
        k: getattr(sampling, k)
        for k in ("steps", "guidance", "negative", "height", "width", "scheduler")
    } | sampling.scales
    with (
        stopping() as asked,
        progress(
            total=sum(map(len, todo)), desc=f"drawing: {name}", unit="image", disable=rank > 0
        ) as bar,
    ):
        for batch in todo:
            pictures = bridge.stream(
                [job.prompt.text + suffix for job in batch],
                seed=[job.seed for job in batch],
                batch_size=size,
                **options,
            )
            rows = []
            for job, picture in zip(batch, pictures, strict=True):
                if job.file in done:  # an earlier batch of another size had it
                    continue
                path = folder / "images" / job.file
                save_png(picture, path, {"prompt": job.prompt.text, "seed": job.seed} | identity)
                rows.append(
                    {
                        "file": job.file,
                        "id": job.prompt.id,
                        "image": job.number,
                        "seed": job.seed,
                        "sha256": checksum(path),
                        "prompt": job.prompt.text,
                    }
                )
            journal.append(rows)
            bar.update(len(batch))
            if asked():
                raise BridgeError("stopped; the same command goes on from there")
    return sum(job.file not in done for batch in todo for job in batch)


def drawn(folder: Path) -> dict[str, str]:
    """The images that are noted and on disk as noted: file name -> sha256."""
    return {
        row["file"]: row["sha256"]
        for row in Journal(folder / MANIFEST).rows()
        if (path := folder / "images" / row["file"]).is_file() and checksum(path) == row["sha256"]
    }


def finish(folder: Path, jobs: Sequence[Picture]) -> None:
    """Merge what the processes noted into `manifest.jsonl`, in the order of the prompts."""
    order = {job.file: place for place, job in enumerate(jobs)}
    Journal(folder / MANIFEST).merge(lambda row: order.get(row["file"], len(order)), key="file")


def found(folder: Path, prompts: Sequence[Prompt], images: int) -> list[list[Path]]:
    """Find every prompt's images in a folder that somebody else filled.

    Known names: `ID.png` and `ID_0.png` with a prompt's id, T2I-CompBench's `PROMPT_000000.png`,
    and any names where the folder has exactly one file an image, in the order of the prompts.

    Raises:
        BridgeError: images are missing.
    """
    place = folder / "images" if (folder / "images").is_dir() else folder
    files = sorted((p for p in place.iterdir() if p.suffix.lower() in SUFFIXES), key=_natural)
    if not files:
        raise BridgeError(f"'{folder}' holds no images ({', '.join(SUFFIXES)})")
    by_stem: dict[str, list[Path]] = {}
    for path in files:
        stem, _, number = path.stem.rpartition("_")
        by_stem.setdefault(path.stem, []).append(path)
        if number.isdigit():
            by_stem.setdefault(stem, []).append(path)
    rows = [(by_stem.get(p.id) or by_stem.get(p.text) or [])[:images] for p in prompts]
    if not any(rows) and len(files) == len(prompts) * images:
        return [files[start : start + images] for start in range(0, len(files), images)]
    short = [p.id for p, row in zip(prompts, rows, strict=True) if len(row) < images]
    if short:
        raise BridgeError(
            f"'{folder}' lacks images of {len(short)} of {len(prompts)} prompts, such as "
            f"'{short[0]}_0.png' (of its {len(files)} files)"
        )
    return rows


def _natural(path: Path) -> list[tuple[str, int]]:
    """`a_2` before `a_10`."""
    parts = re.split(r"(\d+)", path.name)
    return [
        (text, int(number or 0))
        for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True)
    ]


def checksum(path: Path) -> str:
    """16 hex digits of the file's sha256; read again only where the file has changed."""
    about = path.stat()
    return _checksum(path, about.st_mtime_ns, about.st_size)


@cache
def _checksum(path: Path, _changed: int, _size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def claim(
    folder: Path,
    identity: Mapping[str, Any],
    *,
    what: str = "images",
    how: str = "were drawn with",
) -> None:
    """Note what the contents of a folder depend on, or compare it with what was noted.

    Raises:
        BridgeError: they depend on something else; it is named.
    """
    there = claims.noted(folder / SETTINGS, identity, advice=f"delete that folder of {what}")
    if changed := claims.difference(there, identity):
        raise BridgeError(
            f"the {what} in '{folder}' {how} another {changed.key} ({changed.there} there, "
            f"{changed.here} here); choose another --out, or delete that folder"
        )
