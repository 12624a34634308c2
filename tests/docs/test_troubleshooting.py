"""The page on messages quotes what the sources say."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^- \*\*`([^`]+)`\*\*", PAGE, re.MULTILINE)


@cache
def texts() -> list[str]:
    """Every text of the sources; what is filled in is `…`."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "…"
                        for part in node.values
                    )
                )
    return found


def test_a_message_that_nobody_gives_is_noticed() -> None:
    assert not is_said("no such message as '…' is given")
    assert is_said("is of a run with other settings")


@pytest.mark.parametrize("message", QUOTED)
def test_every_quoted_message_is_one_of_the_sources(message: str) -> None:
    assert is_said(message)


def test_there_are_many_and_none_twice() -> None:
    assert len(QUOTED) > 60
    assert len(set(QUOTED)) == len(QUOTED)


def is_said(message: str) -> bool:
    """Whether one text of the sources holds the parts of a message in their order."""
    parts = [re.escape(part) for part in message.split("…")]
    pattern = re.compile(".*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts())
