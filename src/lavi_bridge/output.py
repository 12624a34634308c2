"""What is printed must never end a run: a pipe or console may lack the signs for it."""

import io
import sys


def tolerate_all_signs() -> None:
    """Print `?` for what stdout and stderr cannot take (× under the C locale or Windows' own)."""
    for stream in (sys.stdout, sys.stderr):
        # stderr as Python opens it writes \xd7, and what stands in for them may take everything
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")
