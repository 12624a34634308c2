"""Public files that metrics and suites need: kept in one cache folder, known by their checksum."""

from __future__ import annotations

import hashlib
import os
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home, make_folder, new_file

STALL = 30.0  # seconds without a byte after which a download is given up
LIMIT = 1800.0  # seconds that a whole download may take
CHUNK = 1 << 20  # bytes


def cache() -> Path:
    """The folder of fetched files: `$LAVI_BRIDGE_CACHE`, or else `~/.cache/lavi-bridge`."""
    told = os.environ.get("LAVI_BRIDGE_CACHE")
    return at_home(told) if told else Path.home() / ".cache" / "lavi-bridge"


def checksum(path: Path) -> str:
    """sha256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetched(name: str, *, url: str, sha256: str | None) -> Path:
    """The path of a public file in the cache, downloaded first if it is not there.

    A download takes its place whole or not at all. Nothing is asked of a network under
    `HF_HUB_OFFLINE`, as in the Hub's own libraries.

    Args:
        name: its path in the cache, as `prompts/drawbench.csv`.
        sha256: None for what has no fixed bytes, as an archive made on demand; the caller then
            checks what it reads.

    Raises:
        BridgeError: it is not there and cannot be downloaded, or it is another file than `sha256`
            says; the line names where it comes from and where to put it.
    """
    path = cache() / name
    if not path.is_file():
        _download(url, path, sha256)
    elif sha256 and (found := checksum(path)) != sha256:
        raise BridgeError(
            f"{path} is damaged or another file (sha256 {found[:16]}…, expected {sha256[:16]}…); "
            f"delete it, or put the file from {url} there"
        )
    return path


def _download(url: str, path: Path, sha256: str | None) -> None:
    """Download to `path`, by way of a file beside it that other processes do not know."""
    make_folder(path.parent)
    try:
        with new_file(path) as scratch:
            _read(url, scratch)
            if sha256 and (found := checksum(scratch)) != sha256:
                raise BridgeError(
                    f"{url} did not give {path.name} (sha256 {found[:16]}…, expected "
                    f"{sha256[:16]}…); put the right file at {path}"
                )
    except (OSError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error  # not wrapped in its own name
        raise BridgeError(
            f"cannot fetch {path.name} ({str(reason) or type(error).__name__}); "
            f"download {url} and put it at {path}"
        ) from error


def _read(url: str, part: Path) -> None:
    from huggingface_hub import is_offline_mode

    if is_offline_mode() and not url.startswith("file:"):
        raise OSError("HF_HUB_OFFLINE is set")
    deadline = time.monotonic() + LIMIT
    with urlopen(url, timeout=STALL) as answer, part.open("wb") as file:
        while chunk := answer.read1(CHUNK):
            file.write(chunk)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {LIMIT:.0f} s")
