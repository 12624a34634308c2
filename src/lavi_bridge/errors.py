"""The one error that is meant for the user: a line that names what is wrong and what to do."""

import difflib
from collections.abc import Iterable


class BridgeError(Exception):
    """Bad input, described in one line. The command line prints it without a traceback."""


class Stopped(BridgeError):
    """Somebody has asked a long run to stop, and it has kept what it had."""


class Diverged(BridgeError):
    """A loss is not a number: the learning rates are too high, as a rule."""


class NotANumber(BridgeError):
    """A picture has values that are no numbers, for which any grey would be a lie."""


def first_line(error: BaseException) -> str:
    """An error's first line, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_a_line(error: BaseException) -> str:
    """An error's type and first line: what fits into a one-line message."""
    name, line = type(error).__name__, first_line(error)
    return line if line == name else f"{name}: {line}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
