"""Images in the layouts of the official scorers, and what those scorers found, read back.

Some scorers cannot be part of this package (T2I-CompBench's UniDet: weights for non-commercial use,
and an environment of its own). Their numbers stand under names of their own, never mixed with ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.drawing import checksum
from lavi_bridge.evaluate.official.layouts import (
    IMAGES,
    RESULTS,
    export_compbench,
    export_dpg,
    export_geneval,
    read_compbench,
)
from lavi_bridge.evaluate.results import Judged, MetricInfo
from lavi_bridge.files.atomic import write_text
from lavi_bridge.prompts.prompt import Prompt

OFFICIAL = {
    # the official code's result: its name and head here
    "blip": ("blip-vqa-official", "BLIP-VQA (official)"),
    "spatial": ("unidet", "UniDet (official)"),
    "3d_spatial": ("unidet-3d", "UniDet 3-D (official)"),
    "numeracy": ("unidet-numeracy", "numeracy (official)"),
    "clip": ("clip-nonspatial-official", "CLIP non-spatial (official)"),
    "3_in_1": ("3-in-1", "3-in-1 (official)"),
}
SUITES = ("t2i-compbench", "t2i-compbench-3d", "t2i-compbench-numeracy", "geneval", "dpg")


def export(
    suite: str, prompts: Sequence[Prompt], files: Sequence[Sequence[Path]], folder: Path
) -> None:
    """Write images as the suite's official scorer reads them; what is there already is kept.

    T2I-CompBench has a folder a category. Suites without an official scorer have no layout.

    Raises:
        BridgeError: an image or a prompt does not fit the layout, or other images are there.
    """
    name = suite.partition(":")[0]
    images = [(p, path) for p, paths in zip(prompts, files, strict=True) for path in paths]
    if name.startswith("t2i-compbench"):
        for category in dict.fromkeys(p.category for p in prompts):
            theirs = [(p, path) for p, path in images if p.category == category]
            if (folder / category).exists():
                _same(folder / category, [path for _, path in theirs])
            else:
                export_compbench(folder / category, theirs)
    elif name in SUITES:
        # beside the folder, in which the official scorers take every entry for an image
        noted = folder.with_name(f"{folder.name}.images.json")
        there = [checksum(path) for _, path in images]
        if not folder.exists():
            (export_geneval if name == "geneval" else export_dpg)(folder, images)
            write_text(noted, json.dumps(there) + "\n")
        elif not noted.exists() or json.loads(noted.read_text(encoding="utf-8")) != there:
            raise _others(folder)


def _same(folder: Path, files: Sequence[Path]) -> None:
    """Refuse an earlier export of other images: its official scores are not these images'."""
    try:
        lines = (folder / IMAGES).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        there = [json.loads(line).get("sha256") for line in lines]
    except (OSError, ValueError) as error:
        raise BridgeError(f"'{folder}' is no whole export ({error}); delete it") from error
    if there != [checksum(path) for path in files]:
        raise _others(folder)


def _others(folder: Path) -> BridgeError:
    return BridgeError(
        f"'{folder}' holds an export of other images; choose another --export, or delete it"
    )


def read_official(
    suite: str, prompts: Sequence[Prompt], folder: Path, judged: Judged
) -> list[MetricInfo]:
    """Add to `judged` what official scorers have left in an export; tell what that was.

    Raises:
        BridgeError: a result is damaged, or of other images.
    """
    if not suite.startswith("t2i-compbench"):
        return []
    infos = []
    for part, (name, title) in OFFICIAL.items():
        found: dict[str, list[float]] = {}
        for category in dict.fromkeys(p.category for p in prompts):
            if (folder / category / RESULTS[part].scores).is_file():
                found |= read_compbench(folder / category, part)
        if found:
            judged.scores[name] = [
                [*found[p.id]] if p.id in found else [None] * len(paths)
                for p, paths in zip(prompts, judged.files, strict=True)
            ]
            source = {"scorer": "the official code", "file": RESULTS[part].scores}
            infos.append(MetricInfo(name, title, True, source))
    return infos
