"""Text that consoles, files and tokenizers can take: none of it must end a run."""

import io
import re
import sys

HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, as a text cut within an emoji has them: no UTF-8, and no tokens."""


def whole(text: str) -> str:
    """Text with U+FFFD in place of every half of a surrogate pair."""
    return HALVES.sub("\ufffd", text)


def tolerate_all_signs() -> None:
    """Print `?` for what stdout and stderr cannot take (× under the C locale or Windows' own)."""
    for stream in (sys.stdout, sys.stderr):
        # stderr as Python opens it writes \xd7, and what stands in for them may take everything
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")
