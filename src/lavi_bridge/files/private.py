"""What is of this machine stays here: its folders, in whatever is about to be read by others."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError

FOLDER = re.compile(r"(?<![\w.:/)\\])(?:~[\w-]*[/\\]|/|[A-Za-z]:[/\\])[^\s\"'+*,;()<>|]+")
"""A path from the root or the home, within a text."""
WHOLE = re.compile(r"(file://)?(~[\w-]*[/\\]|(/|[A-Za-z]:[/\\])[^/\\\n]+[/\\])[^\n]*[^\s/\\]")
"""A text that is a path from the root or the home and nothing else."""
VOCABULARY = re.compile(r"(tokenizer|vocab.*|.*vocab|added_tokens|merges)\.json")
"""Names of JSON whose values are parts of words, such as `/usr/bin`."""
HEAD = 8192
"""Bytes by which a text is told from other files."""
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors file's header at most, as the format has it."""
Contents = dict[str, "Path | bytes"]
"""What is published: by path in the repository a file of this machine, or what to write."""


def without_folders(value: Any, moved: Mapping[str, str]) -> Any:
    """JSON in which a folder of this machine is its last name alone, and a moved model its new one.

    Args:
        moved: names for local folders, by the folder.
    """
    if isinstance(value, dict):
        return {key: without_folders(each, moved) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each, moved) for each in value]
    if not isinstance(value, str):
        return value
    if value in moved:
        return moved[value]
    if "+" not in value and Path(value).is_absolute():
        return Path(value).name
    return FOLDER.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)


def renamed(value: Any, moved: Mapping[str, str]) -> Any:
    """JSON in which only moved models have other names: for what may not change otherwise."""
    if isinstance(value, dict):
        return {key: renamed(each, moved) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(each, moved) for each in value]
    return moved.get(value, value) if isinstance(value, str) else value


def check_private(contents: Contents, folders: Iterable[str]) -> None:
    """Refuse texts that still name a folder of this machine.

    Those that are given, the home, where this process runs, and where temporary and fetched files
    lie are looked for in every text, whatever its name, and in the headers of weights; in JSON a
    value that is a path and nothing else is refused whatever it leads to.

    Raises:
        BridgeError: one does; it is named with the file.
    """
    told = _any_of({*folders, *_roots()})
    for path, content in contents.items():
        text, is_json = _text(content, path)
        found = told.search(text)
        name = found[0] if found else None
        if name is None and is_json:
            vocabulary = VOCABULARY.fullmatch(Path(path).name)
            for value in _strings(text):
                if found := told.search(value):
                    name = found[0]
                elif not vocabulary and WHOLE.fullmatch(value):
                    name = value
        if name is not None:
            raise BridgeError(
                f"{path} names '{name}', a folder of this machine; take it out before others "
                "read it"
            )


def _roots() -> Iterator[str]:
    """Folders of this machine below which people and programs keep their own."""
    from huggingface_hub import constants

    yield from (str(Path.home()), str(Path.cwd()), tempfile.gettempdir())
    yield from (constants.HF_HOME, constants.HF_HUB_CACHE)


def _any_of(folders: Iterable[str]) -> re.Pattern[str]:
    """A pattern of these folders; of one right below the root what is in it, too, must be named,
    as `/root` alone is a word."""
    names = sorted((name for name in folders if len(Path(name).parts) > 1), key=len, reverse=True)
    after = {True: r"(?=[/\\]\w)", False: r"(?![\w.-])"}
    each = [re.escape(name) + after[len(Path(name).parts) == 2] for name in names]
    return re.compile(rf"(?<![\w.])(?:{'|'.join(each)})" if each else r"(?!)")


def _text(content: Path | bytes, path: str) -> tuple[str, bool]:
    """What can be read of a file, and whether that is JSON: nothing of pictures and the like, of
    weights their header."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        head = file.read(HEAD)
        size = int.from_bytes(head[:8], "little")
        if head[8:9] == b"{" and size <= LONGEST_HEADER:
            file.seek(8)
            return file.read(size).decode("utf-8", "replace"), True
        if b"\0" in head:
            return "", False
        return (head + file.read()).decode("utf-8", "replace"), path.endswith(".json")


def _strings(text: str) -> Iterator[str]:
    """The strings in JSON, its keys among them; none of what is no JSON."""
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
