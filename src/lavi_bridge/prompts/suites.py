"""Prompt suites: the public lists that image models are judged on, and lists of one's own.

A suite is data: which public files at which commit, how they are read, how many prompts they give
and the hash of these, and what its authors ask for. The lists themselves are not in the package:
they are read from a folder, or fetched once into the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files.atomic import at_home
from lavi_bridge.prompts.catalogue import (
    COMPLEX_LISTS,
    DPG_QUESTIONS,
    SUITES,
    Kind,
    compbench_file,
)
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.questions import dpg, with_questions
from lavi_bridge.prompts.readers import READERS, txt
from lavi_bridge.prompts.suite import as_prompts


def load_suite(spec: str, *, folder: Path | None = None, limit: int | None = None) -> list[Prompt]:
    """The prompts of a suite, of one of its categories, or of a file.

    Args:
        spec: a name of SUITES, `NAME:CATEGORY`, or the path of a .txt, .tsv or .jsonl file.
        folder: where copies of the public files are looked for, before the cache.
        limit: take so many, evenly over the categories and each category's first.

    Raises:
        BridgeError: an unknown suite or category; a file that cannot be had, is empty, or is
            malformed (file and line are named).
    """
    if folder is not None and not folder.is_dir():
        raise BridgeError(f"no folder '{folder}' to look for prompts in")
    if limit is not None and limit < 1:
        raise BridgeError(f"the limit must be at least 1 prompt, not {limit}")
    if reader := READERS.get(Path(spec).suffix.lower()):
        prompts = as_prompts(reader(at_home(spec)), Path(spec).stem)
        if not prompts:
            raise BridgeError(f"'{spec}' holds no prompts")
    else:
        name, _, category = spec.partition(":")
        if name not in SUITES:
            raise BridgeError(
                f"unknown suite '{name}'; known: {', '.join(SUITES)}, "
                f"or a {', '.join(READERS)} file{nearest(name, SUITES)}"
            )
        prompts = SUITES[name].load(folder, category=category)
    return prompts if limit is None else _evenly(prompts, limit)


def complex_lists(folder: Path | None = None) -> dict[Kind, set[str]]:
    """The three lists by which T2I-CompBench sorts its complex prompts.

    Raises:
        BridgeError: a list cannot be had.
    """
    files = {
        k: compbench_file(f"complex_val_{k}.txt", pinned) for k, pinned in COMPLEX_LISTS.items()
    }
    return {kind: {row.text for row in txt(file.find(folder))} for kind, file in files.items()}


def with_dpg_questions(prompts: Sequence[Prompt], folder: Path | None = None) -> list[Prompt]:
    """DPG-Bench's prompts with its questions as facts.

    Raises:
        BridgeError: the table cannot be had, or is another one.
    """
    return with_questions(prompts, dpg(DPG_QUESTIONS.find(folder)))


def duplicates(prompts: Sequence[Prompt]) -> int:
    """How many prompts repeat an earlier one; they are kept, for the public lists have some."""
    return len(prompts) - len({prompt.text for prompt in prompts})


def _evenly(prompts: list[Prompt], limit: int) -> list[Prompt]:
    """The first prompts of every category in turn, in their own order."""
    met: Counter[str] = Counter()
    turns = []
    for index, prompt in enumerate(prompts):
        turns.append((met[prompt.category], index))
        met[prompt.category] += 1
    return [prompts[index] for index in sorted(index for _, index in sorted(turns)[:limit])]
