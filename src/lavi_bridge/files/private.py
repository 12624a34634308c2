"""What is of this machine stays here: its folders, in whatever is about to be read by others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError

FOLDER = re.compile(r"(?<![\w.:/)\\])(?:~[\w-]*[/\\]|/|[A-Za-z]:[/\\])[^\s\"'+*,;()<>|]+")
"""A path from the root or the home, within a text."""
TEXTS = {".json", ".md", ".py", ".txt", ".yaml", ".yml", ".toml", ".jinja"}
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
    """Refuse texts that still name a folder of this machine, the home among them.

    Raises:
        BridgeError: one does; it is named with the file.
    """
    known = {str(Path.home()), *folders}
    names = sorted((name for name in known if len(Path(name).parts) > 1), key=len, reverse=True)
    told = re.compile("|".join(rf"{re.escape(name)}(?![\w.-])" for name in names))
    for path, content in contents.items():
        if Path(path).suffix not in TEXTS or not names:
            continue
        data = content if isinstance(content, bytes) else content.read_bytes()
        if found := told.search(data.decode("utf-8", "replace")):
            raise BridgeError(
                f"{path} names '{found[0]}', a folder of this machine; take it out before others "
                "read it"
            )
