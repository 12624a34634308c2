"""Metrics over images on disk: each image is judged once, whatever stops in between.

Scores lie beside the images, by metric and by what the metric depends on; a row holds the hashes
of the image that it is of and of what was asked about it. Like drawing, judging goes in batches
that are always the same ones.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lavi_bridge.errors import BridgeError, first_line
from lavi_bridge.evaluate.drawing import checksum
from lavi_bridge.files.atomic import make_folder, read_safetensors
from lavi_bridge.files.journal import Journal
from lavi_bridge.files.weights import earlier
from lavi_bridge.metrics import Distance, Metric, Score
from lavi_bridge.metrics.judge.asked import ByJudge
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.running.device import processes
from lavi_bridge.running.progress import progress
from lavi_bridge.running.run_state import stopping, write_tensors

BATCH = 16
"""Images that a metric gets at once."""
CHUNK = 128
"""Images whose features are in one file."""


def digest(metric: Metric, *, before: bool = False) -> str:
    """8 hex digits of all that a metric's numbers depend on beside the images.

    Args:
        before: as commit 23aaa31 made them.
    """
    kind = (
        "features" if isinstance(metric, Distance) else type(metric).__name__
    )  # FID and KID share
    depends = metric.provenance()
    about = json.dumps([kind, earlier(depends) if before else depends], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:8]


def judge(
    metrics: Mapping[str, Score],
    images: Sequence[tuple[Prompt, Path]],
    folder: Path,
    *,
    label: str = "",
) -> None:
    """Score what is not scored yet; under torchrun each process its part of the batches.

    Every image is opened once for all metrics, and those of one CLIP share its embeddings.

    Args:
        folder: gets `NAME-DIGEST.jsonl`; read it with `scores_of` when all processes are done.

    Raises:
        BridgeError: it was stopped, or the GPU's memory is full (what is scored is kept).
    """
    rank, world = processes()
    journals = {name: _journal(name, metric, folder, rank) for name, metric in metrics.items()}
    known = {name: _found(journal) for name, journal in journals.items()}
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with (
        stopping() as asked,
        progress(total=len(images), desc=label, unit="image", disable=rank > 0) as bar,
    ):
        for batch in batches[rank::world]:
            keys = [(_key(path, folder), checksum(path)) for _, path in batch]
            scored = {
                name: [
                    _row(known[name], key, metric, prompt) is not None
                    for key, (prompt, _) in zip(keys, batch, strict=True)
                ]
                for name, metric in metrics.items()
            }
            todo = [name for name in metrics if not all(scored[name])]
            opened = [_open(path) for _, path in batch] if todo else []
            for name in todo:
                metric, prompts = metrics[name], [prompt for prompt, _ in batch]
                try:
                    results = _results(metric, opened, prompts)
                except torch.OutOfMemoryError as error:
                    raise BridgeError(_no_room(name, metric)) from error
                journals[name].append(
                    [
                        {"image": key[0], "sha256": key[1], "asked": _asked(metric, prompt)}
                        | {"id": prompt.id, **result}
                        for key, prompt, result, there in zip(
                            keys, prompts, results, scored[name], strict=True
                        )
                        if not there
                    ]
                )
            bar.update(len(batch))
            if asked():
                raise BridgeError("stopped; the same command goes on from there")


def _asked(metric: Score, prompt: Prompt) -> str:
    """8 hex digits of what a metric reads of a prompt."""
    return hashlib.sha256(metric.reads(prompt).encode()).hexdigest()[:8]


def _found(journal: Journal) -> dict[tuple[str, str, str | None], dict[str, Any]]:
    """Rows by image, its hash, and what was asked; the latter is None in those written before."""
    return {(row["image"], row["sha256"], row.get("asked")): row for row in journal.rows()}


def _row(
    found: Mapping[tuple[str, str, str | None], dict[str, Any]],
    key: tuple[str, str],
    metric: Score,
    prompt: Prompt,
) -> dict[str, Any] | None:
    """The row of an image and what is asked about it, if it is scored.

    One that does not say what was asked counts where no more than the prompt's text is.
    """
    row = found.get((*key, _asked(metric, prompt)))
    if row is None and metric.reads(prompt) == prompt.text:
        return found.get((*key, None))
    return row


def _journal(name: str, metric: Score, folder: Path, process: int = 0) -> Journal:
    known = f"{name}-{digest(metric, before=True)}"
    there = [*folder.glob(f"{known}.jsonl"), *folder.glob(f".{known}.*.jsonl")]
    return Journal(folder / f"{known if there else f'{name}-{digest(metric)}'}.jsonl", process)


def others(name: str, metric: Score, folder: Path) -> list[str]:
    """Files of scores of the same name that depend on something else, as on another judge."""
    own = _journal(name, metric, folder).path.name
    known = re.compile(rf"{re.escape(name)}-[0-9a-f]{{8}}\.jsonl")
    there = sorted(path.name for path in folder.glob("*.jsonl") if known.fullmatch(path.name))
    return [file for file in there if file != own]


def settle(name: str, metric: Score, images: Sequence[tuple[Prompt, Path]], folder: Path) -> None:
    """Merge what the processes scored into one file, in the order of the images."""
    order = {_key(path, folder): place for place, (_, path) in enumerate(images)}
    journal = _journal(name, metric, folder)
    journal.merge(lambda row: order.get(row["image"], len(order)), key="image")


def scores_of(
    name: str,
    metric: Score,
    prompts: Sequence[Prompt],
    files: Sequence[Sequence[Path]],
    folder: Path,
) -> tuple[list[list[float | None]], list[str]]:
    """Scores in the order of the files, None where there is none, and a line for every failure.

    Args:
        files: the images of each prompt.
    """
    found = _found(_journal(name, metric, folder))
    scores, failures = [], []
    for prompt, images in zip(prompts, files, strict=True):
        keys = [(_key(path, folder), checksum(path)) for path in images]
        known = [_row(found, key, metric, prompt) or {} for key in keys]
        scores.append([row.get("score") for row in known])
        failures += [f"{row['image']}: {row['error']}" for row in known if "error" in row]
    return scores, failures


def features_of(metric: Distance, files: Sequence[Path], folder: Path, *, label: str = "") -> None:
    """Extract features chunk by chunk into `folder/DIGEST`; read them with `read_features`.

    Raises:
        BridgeError: an image cannot be read (a distance without it would be another), or it was
            stopped (what is extracted is kept).
    """
    rank, world = processes()
    starts = range(0, len(files), CHUNK)
    with (
        stopping() as asked,
        progress(total=len(files), desc=label, unit="image", disable=rank > 0) as bar,
    ):
        for start in starts[rank::world]:
            chunk = files[start : start + CHUNK]
            path = _features_path(metric, chunk, folder)
            if not path.exists():
                make_folder(path.parent)
                parts = [
                    metric.features([_opened(p) for p in chunk[at : at + BATCH]])
                    for at in range(0, len(chunk), BATCH)
                ]
                write_tensors({"features": torch.cat(parts)}, path)
            bar.update(len(chunk))
            if asked():
                raise BridgeError("stopped; the same command goes on from there")


def read_features(metric: Distance, files: Sequence[Path], folder: Path) -> Tensor:
    """Features (images, width) in the order of the files."""
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    return torch.cat(
        [read_safetensors(_features_path(metric, chunk, folder))["features"] for chunk in chunks]
    )


def _features_path(metric: Distance, chunk: Sequence[Path], folder: Path) -> Path:
    """Name the file of features after the images: with another one among them it is another."""
    content = "".join(checksum(path) for path in chunk)
    name = f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.safetensors"
    known = folder / digest(metric, before=True) / name
    return known if known.exists() else folder / digest(metric) / name


def _results(
    metric: Score, images: Sequence[Image.Image | str], prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """A score or an error for every image; one bad image does not take the others with it."""
    whole = [image for image in images if not isinstance(image, str)]
    if len(whole) == len(images):
        try:
            return [_result(score) for score in metric(whole, prompts)]
        except (BridgeError, ValueError) as error:
            if len(images) == 1:
                return [{"error": first_line(error)}]
    elif len(images) == 1:
        return [{"error": str(images[0])}]
    return [
        result
        for image, prompt in zip(images, prompts, strict=True)
        for result in _results(metric, [image], [prompt])
    ]


def _no_room(name: str, metric: Score) -> str:
    advice = "close what else is on it, or give --device cpu"
    if isinstance(metric, ByJudge):
        advice = "hold the judge in fewer bits (--judge-quantize int8, nf4), or take a smaller one"
    return f"{name}: the GPU's memory is full: {advice}; what is scored is kept"


def _result(score: float) -> dict[str, Any]:
    return {"score": score} if math.isfinite(score) else {"error": f"the score is {score}"}


def _open(path: Path) -> Image.Image | str:
    """The image, or why there is none."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except Exception as error:  # Pillow's decoders raise whatever their arithmetic does
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"cannot read image '{path.name}': {reason}"


def _opened(path: Path) -> Image.Image:
    picture = _open(path)
    if isinstance(picture, str):
        raise BridgeError(f"{picture} ('{path}')")
    return picture


def _key(path: Path, folder: Path) -> str:
    """The image's name in a journal, which may be moved together with its images."""
    root = folder.parent
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name
