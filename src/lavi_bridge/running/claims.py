"""A folder remembers what it is of: noted where work begins, compared where it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import write_text
from lavi_bridge.files.weights import earlier
from lavi_bridge.running.lock import in_turn


@dataclass(frozen=True)
class Difference:
    """A setting that is not what it was."""

    key: str
    there: Any
    here: Any

    def __str__(self) -> str:
        return f"{self.key}: {str(self.there)[:200]} there, {str(self.here)[:200]} here"


def noted(
    path: Path,
    about: Mapping[str, Any],
    *,
    advice: str,
    at_once: bool = False,
    before: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Return what `path` says its folder is of; where there is no such file, write `about` first.

    Args:
        advice: what to do where the file is damaged.
        at_once: several runs may begin the folder, which no lock keeps apart.
        before: is called before the file is written, and raises where the folder is not free.

    Raises:
        BridgeError: the file is damaged.
    """
    if not path.exists():
        with in_turn(path.parent) if at_once else nullcontext():
            if not path.exists():
                if before:
                    before()
                write_text(path, json.dumps(_plain(about), indent=2) + "\n")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BridgeError(f"{path} is damaged ({error}); {advice}") from error
    if not isinstance(found, dict):
        raise BridgeError(f"{path} is damaged (no JSON object); {advice}")
    return found


def difference(
    there: Mapping[str, Any],
    here: Mapping[str, Any],
    *,
    apart_from: Collection[str] = (),
    ours_alone: bool = False,
) -> Difference | None:
    """Return the first setting that differs; fingerprints of earlier versions are known as equal.

    Args:
        apart_from: settings that may differ.
        ours_alone: pass over what is noted there and no setting here.
    """
    now = _plain(here)
    formerly = cache(lambda: _plain(earlier(dict(here))))  # may read weights
    for key in now if ours_alone else now | dict(there):
        found = there.get(key)
        if key not in apart_from and found != now.get(key) and found != formerly().get(key):
            return _within(Difference(key, found, now.get(key)))
    return None


def _within(whole: Difference) -> Difference:
    """The first setting that differs inside of two that hold others."""
    there, here = whole.there, whole.here
    if not isinstance(there, dict) or not isinstance(here, dict):
        return whole
    key = next((k for k in here | there if there.get(k) != here.get(k)), None)
    if key is None:  # one is missing where the other is null
        return whole
    return _within(Difference(f"{whole.key}, {key}", there.get(key), here.get(key)))


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(about, default=str))
    return plain
