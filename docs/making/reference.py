"""Writes docs/reference/cli.md from the docstrings that `--help` shows: `make reference`.

Settings are read from their dataclasses, not from printed help, so that a page for reading comes of
it; a test holds the page to them.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from lavi_bridge.cli.completion import APPENDS, OMITS_PREFIX, POSITIONAL, SETTINGS
from lavi_bridge.cli.groups import field_docs
from lavi_bridge.cli.main import COMMANDS
from lavi_bridge.config import Sampling
from lavi_bridge.files.atomic import write_text
from lavi_bridge.train.options import GROUPS

PAGE = Path(__file__).parents[1] / "reference" / "cli.md"
HEAD = """\
# The command line

A command prints what it has made, and progress to stderr. Bad input is one line on stderr and exit
code 2; an interrupt is 130. `lavi-bridge COMMAND --help` shows what is here, from the same
docstrings.

A **model** is a folder, a Hub id (`owner/name`, `owner/name/subfolder`, `owner/name@revision`) or
`zoo:NAME`, a bundled one. A **bridge** is a folder that `train` has written, or a Hub id. Paths may
begin with `~`. `--[no-]flag` is a switch: `--flag` turns it on, `--no-flag` off. A flag that takes
several values takes all that follow: `--suites short long`.
"""
DRAWING = "How pictures are drawn"
KINDS = {"int": "integer", "float": "number", "str": "text", "Path": "path"}
SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def page() -> str:
    """The whole page."""
    parts = [HEAD, _table(("command", "what it does"), _overview())]
    for name, settings in SETTINGS.items():
        parts.append("\n".join(_command(name, settings)))
    shown = _table(*_options(Sampling, [f.name for f in dataclasses.fields(Sampling)]))
    parts.append(
        f"## {DRAWING}\n\nOptions of `generate`, `influence`, `evaluate` and `push`.\n\n{shown}"
    )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _overview() -> Iterator[Sequence[str]]:
    """Every command with the line that `lavi-bridge --help` has of it."""
    for name, run in COMMANDS.items():
        actions = [each for each in SETTINGS if each.split()[0] == name]
        links = ", ".join(f"[`{each}`](#{each.replace(' ', '-')})" for each in actions)
        yield links, _escaped(str(run.__doc__))


def _command(name: str, settings: type) -> Iterator[str]:
    fields = {field.name: field for field in dataclasses.fields(settings)}
    yield f"## {name}\n"
    yield f"{_prose(inspect.getdoc(settings) or '')}\n"
    yield f"**Usage:** `{_usage(name, settings)}`\n"
    if name == "train":
        yield "A file in YAML holds the same settings, `lr_adapter: 1e-4` for `--lr-adapter 1e-4`;"
        yield "flags win over the file, and the file over the recipe.\n"
        for title, names in GROUPS.items():
            yield f"### {title[0].upper()}{title[1:]} options\n"
            yield _table(*_options(settings, names)) + "\n"
    else:
        yield _table(*_options(settings, list(fields)))
    if any(OMITS_PREFIX in _marks(hint) for hint in _hints(settings).values()):
        anchor = DRAWING.lower().replace(" ", "-")
        yield f"\nand [how pictures are drawn](#{anchor})."


def _usage(name: str, settings: type) -> str:
    """The command with what must be given."""
    words = ["lavi-bridge", name] + ["[CONFIG.yaml]"] * (name == "train")
    for field in dataclasses.fields(settings):
        hint, needed = _hints(settings)[field.name], _default(field) is MISSING
        shown = field.name.upper().replace("_", "-")
        if POSITIONAL in _marks(hint):
            shown += " …" * _many(hint)
            words.append(shown if needed else f"[{shown}]")
        elif needed:
            words.append(f"--{shown.lower()} {shown}" + " …" * _many(hint))
    return " ".join([*words, "[OPTIONS]"])


def _options(settings: type, names: Sequence[str]) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Head and rows of a table of options; those of drawing stand elsewhere."""
    texts, hints = field_docs(settings), _hints(settings)
    rows: list[Sequence[str]] = []
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for name in names:
        hint, default = hints[name], _default(fields[name])
        if OMITS_PREFIX in _marks(hint):
            continue
        flag = name.replace("_", "-")
        if POSITIONAL in _marks(hint):
            shown = f"`{flag.upper()}`"
        elif _kinds(hint) == ["switch"]:
            shown = f"`--[no-]{flag}`"
        else:
            shown = f"`--{flag}`"
        rows.append((shown, _takes(hint), _shown(default), _escaped(texts[name])))
    return ("option", "takes", "default", "what it does"), rows


def _hints(settings: type) -> dict[str, Any]:
    return typing.get_type_hints(settings, include_extras=True)


def _marks(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _many(hint: Any) -> bool:
    return "list" in str(hint)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _takes(hint: Any) -> str:
    kinds = " or ".join(_kinds(hint))
    if kinds == "switch":
        return ""
    if APPENDS in _marks(hint):
        return f"{kinds}; may be repeated"
    return f"{kinds} …" if _many(hint) else kinds


def _kinds(hint: Any) -> list[str]:
    """What a type is called in a table, each of a union, with its bounds."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return ["switch"]
    if origin is typing.Annotated:
        bounds = ", ".join(f"{SIGNS[type(b)]} {_bound(b)}" for b in args[1:] if type(b) in SIGNS)
        return [f"{kind} {bounds}" for kind in _kinds(args[0])]
    if origin is typing.Literal:
        return [", ".join(f"`{value}`" for value in args)]
    if origin in (typing.Union, types.UnionType):
        return [kind for arg in args if arg is not type(None) for kind in _kinds(arg)]
    if origin is list:
        return _kinds(args[0])
    return [KINDS[hint.__name__]]


def _bound(bound: Ge | Gt | Le | Lt) -> str:
    (value,) = dataclasses.asdict(bound).values()
    return f"{value:g}".replace("inf", "∞")


def _shown(default: Any) -> str:
    if default is MISSING:
        return "**required**"
    if default is None or default == []:
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    return f'`"{default}"`' if default == "" else f"`{default}`"


# ---- Markdown


def _table(head: Sequence[str], rows: typing.Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _prose(text: str) -> str:
    """A docstring as Markdown: its indented lines are commands."""
    blocks = []
    for block in text.split("\n\n"):
        if block.startswith("  "):
            commented = re.sub(r"(?<=\S) {2,}(?=[^ #])", "  # ", inspect.cleandoc(block))
            blocks.append(f"```sh\n{commented}\n```")
        else:
            blocks.append(_escaped(block))
    return "\n\n".join(blocks)


def _escaped(text: str) -> str:
    """Text of a docstring on one line, whose signs mean nothing in Markdown; code stays code."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"([*_\[\]])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    linked = re.sub(r"docs/([\w-]+\.md)", r"[docs/\1](../\1)", "".join(parts))
    return linked.replace("|", "\\|")


def main() -> None:
    write_text(PAGE, page())


if __name__ == "__main__":
    main()
