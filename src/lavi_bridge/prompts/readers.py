"""Files of prompts: lines, tables, JSON lines and the public layouts, read row by row."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError, in_a_line


@dataclass(frozen=True)
class Line:
    """What a file says of one prompt, and where."""

    where: str
    """`file:line`, for messages."""
    text: str
    category: str = ""
    id: str = ""
    short: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def lines(path: Path, what: str = "prompts") -> Iterator[tuple[str, str]]:
    """Where each line of a UTF-8 file is, and the line; blank ones are skipped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BridgeError(f"cannot read {what} '{path}': {error.strerror}") from error
    for number, raw in enumerate(content.split(b"\n"), 1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise BridgeError(f"{where}: not UTF-8 text; save the file as UTF-8") from error
        if line.strip():
            yield where, line


def txt(path: Path, category: str = "") -> Iterator[Line]:
    """One prompt a line."""
    for where, line in lines(path):
        yield Line(where, line, category)


def tsv(path: Path, columns: Sequence[str] = ()) -> Iterator[Line]:
    """Tab-separated, without quoting: the column `prompt` of a header, or else the last one.

    The header may also name `id`, `category` and `short`; its other columns become facts.

    Args:
        columns: their names where the file has no header.
    """
    names = list(columns)
    for where, line in lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if not names:
            lower = [cell.lower() for cell in cells]
            if "prompt" in lower:
                special = ("prompt", "id", "category", "short")
                names = [a if a in special else b for a, b in zip(lower, cells, strict=True)]
                continue
            names = [""] * (len(cells) - 1) + ["prompt"]
        if len(cells) != len(names):
            raise BridgeError(f"{where}: {len(cells)} columns, but the first line has {len(names)}")
        known = {name: cell for name, cell in zip(names, cells, strict=True) if name and cell}
        yield Line(
            where,
            known.pop("prompt", ""),
            known.pop("category", ""),
            known.pop("id", ""),
            known.pop("short", ""),
            dict(known),
        )


def jsonl(path: Path, category: str = "category") -> Iterator[Line]:
    """A JSON object a line: `prompt` (or `long`, as `lavi-bridge expand` writes); others are facts.

    Args:
        category: the key of the category; if it is another than `category`, it stays a fact, too.
    """
    for where, line in lines(path):
        try:
            entry = json.loads(line)
            json.dumps(entry, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise BridgeError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(entry, dict):
            raise BridgeError(f'{where}: expected an object, as {{"prompt": "a red circle"}}')
        key = "prompt" if "prompt" in entry else "long"
        words = [entry.get(name) for name in (key, category, "id", "short")]
        for name, value in zip((key, category, "id", "short"), words, strict=True):
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise BridgeError(f"{where}: '{name}' must be text")
        if key not in entry:
            raise BridgeError(f"{where}: no 'prompt'; it has {', '.join(entry) or 'nothing'}")
        facts = {k: v for k, v in entry.items() if k not in (key, "category", "id", "short")}
        text, kind, own, short = ("" if value is None else str(value) for value in words)
        yield Line(where, text, kind, own, short, facts)


def genai(path: Path) -> Iterator[Line]:
    """GenAI-Bench: one JSON object of prompts by their numbers, with people's ratings of others'
    pictures, which are left out."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [(str(key), str(entry["prompt"])) for key, entry in found.items()]
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise BridgeError(
            f"cannot read '{path}' as a JSON object of prompts by number: {in_a_line(error)}"
        ) from error
    for key, text in rows:
        yield Line(f"{path}:{key}", text, id=key)


def texts(place: Path) -> Iterator[Line]:
    """DPG-Bench: `dpg_bench/prompts`, a .txt file a prompt, as a folder or in a .tar.gz."""
    found: dict[str, tuple[str, bytes]] = {}
    if place.is_dir():
        found = {p.stem: (str(p), p.read_bytes()) for p in place.glob("*.txt")}
    else:
        try:
            with tarfile.open(place) as archive:
                for member in archive:
                    path = Path(member.name)
                    if path.match("dpg_bench/prompts/*.txt") and (
                        file := archive.extractfile(member)
                    ):
                        found[path.stem] = (f"{place}:{member.name}", file.read())
        except (OSError, tarfile.TarError, EOFError) as error:
            raise BridgeError(
                f"cannot read '{place}' ({error}); delete it and try again"
            ) from error
    for key, (where, content) in sorted(found.items()):
        yield Line(where, " ".join(content.decode("utf-8", "replace").split()), id=key)


def pairs(short: Path, long: Path, drawbench: Path, upsampled: Path) -> Iterator[Line]:
    """Short prompts with their long ones: of DrawBench as in DALL·E 3's evaluation, of VBench.

    Two of DrawBench's were not expanded or were changed. Of VBench's, a short one counts once, and
    its long one has to hold a word of it.
    """
    # lists of unequal lengths give other prompts than the suite's, which is found there
    for (_, brief), (where, line) in zip(lines(drawbench), lines(upsampled), strict=False):
        if line.startswith(f"{brief.strip()}. "):
            text = line.removeprefix(f"{brief.strip()}. ")
            yield Line(where, text, "drawbench", short=brief.strip())
    met = set()
    for (_, brief), (where, line) in zip(lines(short), lines(long), strict=False):
        if brief.strip() not in met and _words(brief) & _words(line):
            met.add(brief.strip())
            yield Line(where, line, "vbench", short=brief.strip())


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{2,}", text.lower()))


READERS: dict[str, Callable[[Path], Iterator[Line]]] = {".txt": txt, ".tsv": tsv, ".jsonl": jsonl}
"""By the ending of a file of one's own."""
