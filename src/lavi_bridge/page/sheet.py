"""A sheet of prompts, as somebody has sent it."""

from __future__ import annotations

from pathlib import Path

from lavi_bridge.bridge.drawing import read_prompts
from lavi_bridge.errors import BridgeError

MOST_PROMPTS = 64
MOST_BYTES = 256 * 1024
"""Of a sheet of prompts."""


def sheet_of(file: str | None) -> list[str]:
    """The prompts of an uploaded file.

    Raises:
        BridgeError: there is none, it is too large, it is no text, or it has too many prompts.
    """
    if not file:
        raise BridgeError("choose a text file with one prompt a line first")
    path = Path(file)
    if path.stat().st_size > MOST_BYTES:
        raise BridgeError(f"'{path.name}' is larger than {MOST_BYTES // 1024} KiB")
    try:
        prompts = read_prompts(path)
    except BridgeError as error:
        raise BridgeError(str(error).replace(str(path), path.name)) from error
    if len(prompts) > MOST_PROMPTS:
        raise BridgeError(
            f"'{path.name}' has {len(prompts)} prompts; a sheet has at most {MOST_PROMPTS}"
        )
    return prompts
