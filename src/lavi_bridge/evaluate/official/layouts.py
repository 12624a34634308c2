"""To and from the official scorers: images in the layouts that they read, and their results back.

T2I-CompBench: `<folder>/samples/<prompt>_<6-digit number>.png`, and `vqa_result.json` files.
GenEval (djghosh13/geneval): `<folder>/<5-digit prompt>/metadata.jsonl` and `samples/<4-digit>.png`.
DPG-Bench (TencentQQGYLab/ELLA): `<folder>/<id>.png`, four images in a square.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import new_folder
from lavi_bridge.files.fetch import checksum
from lavi_bridge.prompts.prompt import Prompt

IMAGES = "images.jsonl"
"""Beside `samples/`: which prompt each number belongs to; the official scorers do not read it."""


@dataclass(frozen=True)
class Result:
    """Where an official scorer writes."""

    scores: str
    """A JSON list of {"question_id", "answer"}."""
    average: str
    """A line of text whose last number is the mean."""


RESULTS = {
    "blip": Result("annotation_blip/vqa_result.json", "annotation_blip/blip_vqa_score.txt"),
    "spatial": Result(
        "labels/annotation_obj_detection_2d/vqa_result.json",
        "labels/annotation_obj_detection_2d/avg_score.txt",
    ),
    "3d_spatial": Result(
        "labels/annotation_obj_detection_3d/vqa_result.json",
        "labels/annotation_obj_detection_3d/avg_result.txt",
    ),
    "numeracy": Result("annotation_num/vqa_result.json", "annotation_num/score.txt"),
    "clip": Result("annotation_clip/vqa_result.json", "annotation_clip/score_avg.txt"),
    "3_in_1": Result("annotation_3_in_1/vqa_result.json", "annotation_3_in_1/vqa_score.txt"),
}
"""The results of T2I-CompBench's scorers, in the folder of the images."""

LONGEST = 255  # bytes of a file name
TOLERANCE = 1e-6  # of a mean written beside its numbers


# Images -------------------------------------------------------------------------------------------


def export_compbench(out: Path, images: Iterable[tuple[Prompt, Path]]) -> int:
    """Write images as T2I-CompBench's scorers read them, numbered from 0 in the order given.

    Returns how many. One category a folder, ten images a prompt, the prompts in the order of their
    list: so the official complex score finds them.

    Raises:
        BridgeError: an image cannot be read, `out` is in use, or a prompt cannot be part of a file
            name, from which alone the scorers read it.
    """
    rows = []
    with _fresh(out) as folder:
        (folder / "samples").mkdir()
        for number, (prompt, path) in enumerate(images):
            name = f"{prompt.text}_{number:06}.png"
            _check_name(prompt, name)
            _copy(path, folder / "samples" / name)
            rows.append(
                {
                    "question_id": number,
                    "prompt": prompt.id,
                    "image": name,
                    "sha256": checksum(path)[:16],
                }
            )
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / IMAGES).write_text(lines, encoding="utf-8")
    return len(rows)


def export_geneval(out: Path, images: Iterable[tuple[Prompt, Path]]) -> int:
    """Write images as GenEval's scorer reads them; returns how many.

    Raises:
        BridgeError: an image cannot be read, `out` is in use, or a prompt is none of GenEval's
            (its facts lack what `evaluation_metadata.jsonl` says of it).
    """
    groups = _by_prompt(images)
    with _fresh(out) as folder:
        for index, (prompt, paths) in enumerate(groups):
            if missing := {"tag", "include"} - set(prompt.facts):
                raise BridgeError(
                    f"prompt '{prompt.id}' is none of GenEval's: it has no '{min(missing)}'"
                )
            samples = folder / f"{index:05}" / "samples"
            samples.mkdir(parents=True)
            metadata = prompt.facts | {"prompt": prompt.text}
            (samples.parent / "metadata.jsonl").write_text(json.dumps(metadata), encoding="utf-8")
            for number, path in enumerate(paths):
                _copy(path, samples / f"{number:04}.png")
    return sum(len(paths) for _, paths in groups)


def export_dpg(out: Path, images: Iterable[tuple[Prompt, Path]]) -> int:
    """Write each prompt's four images as the square that DPG-Bench's scorer cuts up again.

    Returns the side of one image in pixels: what the scorer is told by `--resolution` (and by
    `--pic-num 4`). A prompt's id must be DPG-Bench's.

    Raises:
        BridgeError: an image cannot be read or has another size, `out` is in use, or a prompt has
            another number of images.
    """
    side = 0
    with _fresh(out) as folder:
        for prompt, paths in _by_prompt(images):
            if len(paths) != 4:
                raise BridgeError(
                    f"prompt '{prompt.id}' has {len(paths)} images; DPG-Bench wants 4 of each"
                )
            pictures = [_read(path) for path in paths]
            side = side or pictures[0].width
            square = Image.new("RGB", (2 * side, 2 * side))
            for number, (path, picture) in enumerate(zip(paths, pictures, strict=True)):
                if picture.size != (side, side):
                    width, height = picture.size
                    raise BridgeError(
                        f"'{path}' has {width}x{height} pixels; DPG-Bench wants all images of one "
                        f"square size, here {side}x{side}"
                    )
                square.paste(picture, (number % 2 * side, number // 2 * side))
            square.save(folder / f"{prompt.id}.png")
    return side


@contextmanager
def _fresh(out: Path) -> Iterator[Path]:
    """A new folder, whole or not at all: leftovers of other images would be scored, too."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BridgeError(f"'{out}' is in use; export into a new folder")
    with new_folder(out, own=()) as folder:
        yield folder


def _by_prompt(images: Iterable[tuple[Prompt, Path]]) -> list[tuple[Prompt, list[Path]]]:
    """Each prompt once, in the order of its first image."""
    groups: dict[str, tuple[Prompt, list[Path]]] = {}
    for prompt, path in images:
        groups.setdefault(prompt.id, (prompt, []))[1].append(path)
    return list(groups.values())


def _check_name(prompt: Prompt, name: str) -> None:
    bad = next((mark for mark in "/_\0\n\r" if mark in prompt.text), None)
    if bad:
        problem = f"with {bad!r} in it"
    elif not prompt.text.strip():
        problem = "that is empty"
    elif len(name.encode()) > LONGEST:
        problem = f"of {len(prompt.text.encode())} bytes"
    else:
        return
    raise BridgeError(
        f"prompt '{prompt.id}' cannot be exported: the official scorers read prompts from file "
        f"names, and none can hold a prompt {problem}"
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a PNG as it is; other formats become PNG."""
    picture = _read(source)
    if picture.format == "PNG":
        shutil.copyfile(source, target)
    else:
        picture.convert("RGB").save(target)


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError as error:
        raise BridgeError(f"no image '{path}'") from error
    except Exception as error:  # Pillow's decoders raise whatever their arithmetic does
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BridgeError(f"cannot read image '{path}': {reason}") from error
    return picture


# Results ------------------------------------------------------------------------------------------


def read_compbench(folder: Path, part: str) -> dict[str, list[float]]:
    """Read what an official scorer of T2I-CompBench wrote about exported images.

    Args:
        folder: the folder of `export_compbench`.
        part: one of RESULTS.

    Returns:
        Prompt ids in the order of the export, each with the scores of its images.

    Raises:
        BridgeError: a file is missing or damaged, the scores are not those of the images, or their
            mean is not the one that the scorer wrote beside them.
    """
    if part not in RESULTS:
        raise BridgeError(f"unknown result '{part}'; known: {', '.join(RESULTS)}")
    result = RESULTS[part]
    numbers = _numbers(folder / result.scores)
    owners = _owners(folder / IMAGES)
    if set(numbers) != set(owners):
        first = min(set(numbers) ^ set(owners))
        raise BridgeError(
            f"{folder / result.scores} has {len(numbers)} scores for {len(owners)} images; the "
            f"first difference is at {first}: score the whole folder again"
        )
    _check_mean(folder / result.average, numbers.values())
    scores: dict[str, list[float]] = {}
    for number, prompt in owners.items():
        scores.setdefault(prompt, []).append(numbers[number])
    return scores


def _numbers(path: Path) -> dict[int, float]:
    """Image number -> score."""
    entries = _json(path, _text(path))
    if not isinstance(entries, list) or not entries:
        raise BridgeError(f"{path} is no list of scores")
    found: dict[int, float] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not {"question_id", "answer"} <= set(entry):
            raise BridgeError(f"{path}: entry {place} lacks 'question_id' or 'answer'")
        try:
            number, score = int(entry["question_id"]), float(entry["answer"])
        except (TypeError, ValueError) as error:
            raise BridgeError(f"{path}: entry {place} is not of numbers: {entry}") from error
        if not math.isfinite(score):
            raise BridgeError(f"{path}: image {number} has the score {score}")
        if number in found:
            raise BridgeError(f"{path}: image {number} is scored twice")
        found[number] = score
    return found


def _owners(path: Path) -> dict[int, str]:
    """Image number -> prompt id."""
    owners: dict[int, str] = {}
    for line, text in enumerate(_text(path).removesuffix("\n").split("\n"), 1):
        row = _json(path, text)
        if not isinstance(row, dict) or not {"question_id", "prompt"} <= set(row):
            raise BridgeError(f"{path}:{line}: lacks 'question_id' or 'prompt'")
        owners[row["question_id"]] = row["prompt"]
    return owners


def _check_mean(path: Path, scores: Iterable[float]) -> None:
    """Compare with the scorer's own mean, where it wrote one."""
    if not path.exists():
        return
    found = re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", _text(path))
    if not found:
        raise BridgeError(f"{path} holds no number")
    values: Sequence[float] = list(scores)
    mean, written = math.fsum(values) / len(values), float(found[-1])
    if abs(mean - written) > TOLERANCE:
        raise BridgeError(f"{path} says {written}, its scores have the mean {mean:.6f}")


def _text(path: Path) -> str:
    if not path.is_file():
        raise BridgeError(f"no file '{path}': run the official scorer on the exported folder first")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BridgeError(f"{path} is not UTF-8 text") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BridgeError(f"{path} is not valid JSON: {error}") from error
