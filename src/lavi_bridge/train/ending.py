"""How a run ended before its last step: `ended.json` in its folder, for whoever looks later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from json import dumps
from pathlib import Path

from lavi_bridge.errors import BridgeError, Stopped, in_a_line
from lavi_bridge.files.atomic import write_text

ENDED = "ended.json"


@contextmanager
def noting_the_end(out: Path, *, main: bool) -> Iterator[None]:
    """Write how a run ends if it does not reach its last step; what an earlier call left goes.

    Args:
        main: whether this is the process that writes.
    """
    if main:
        (out / ENDED).unlink(missing_ok=True)
    try:
        yield
    except BaseException as error:
        asked = isinstance(error, Stopped | KeyboardInterrupt)
        line = str(error) if isinstance(error, BridgeError) else in_a_line(error)
        if main:
            with suppress(OSError):  # a full disk may be why
                text = dumps({"how": "stopped" if asked else "failed", "why": line})
                write_text(out / ENDED, text + "\n")
        raise
