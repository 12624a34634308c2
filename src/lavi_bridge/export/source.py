"""Self-contained sources of exported folders, made of our own: one implementation, two places.

A file that is written is one of `written/` with what it imports of this package set before it: of
the adapters what reads prompts, without what trains, loads and saves them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.errors import BridgeError

PACKAGE = "lavi_bridge"
KEPT = {
    "Adapter": (
        *("kind", "pools", "timed", "__init__", "build", "usual_inner", "forward", "mix_layers"),
        *("read", "mixing", "others", "tokens_of", "pooled_of", "prepare"),
    ),
    "Text": ("hidden", "mask", "pooled", "more", "own"),
}
"""Of these classes the members that are kept: those that reading a prompt asks for."""
NOT_READ = ("fresh", "last", "capped")
"""Methods that are left out of every class: those for training."""


def text_half(kinds: Sequence[str], *, more: Sequence[str] = ()) -> str:
    """The source of the text half with adapters of these kinds.

    Args:
        more: files of `written/` that come after it.
    """
    for kind in kinds:
        if ADAPTERS[kind].timed:
            raise BridgeError(
                f"the '{kind}' adapter reads a prompt anew at every step, and pipelines take "
                "features that stay: it has no export"
            )
    written = [import_module(f"{PACKAGE}.export.written.{n}") for n in ("base", "half", *more)]
    table = "".join(f'    "{kind}": {ADAPTERS[kind].__name__},\n' for kind in kinds)
    return joined([*_adapters(kinds), *written[:1]], written[1:], f"ADAPTERS = {{\n{table}}}")


def block(kind: str, family: str) -> str:
    """The source of a family's modular pipeline with the text half.

    Args:
        family: the class of diffusers that has its blocks.
    """
    text = text_half([kind], more=["block"])
    itself = _source(import_module(f"{PACKAGE}.export.written.block"))
    before, told = (ast.get_docstring(ast.parse(one), clean=False) for one in (text, itself))
    return text.replace(str(before), str(told), 1).replace(
        'FAMILY = "StableDiffusionXLAutoBlocks"', f'FAMILY = "{family}"'
    )


def component() -> str:
    """The source of a component that is loaded from where it was published."""
    return joined([], [import_module(f"{PACKAGE}.export.written.base")])


def joined(before: Sequence[ModuleType], main: Sequence[ModuleType], between: str = "") -> str:
    """One source of several modules, without their imports of each other.

    Args:
        main: their first docstring is that of the whole.
        between: a statement between both.
    """
    parts: list[str] = []
    imports: list[ast.Import | ast.ImportFrom] = []
    docstring = ast.get_docstring(ast.parse(_source(main[0])), clean=False)
    for module in before:
        parts += _definitions(module, imports)
    parts += [between] if between else []
    for module in main:
        parts += _definitions(module, imports)
    parts = _used(parts)
    body = "\n\n\n".join(parts)
    head = f"from __future__ import annotations\n\n{_imports(imports, body)}"
    return f'"""{docstring}"""\n\n{head}\n\n\n{body}\n'


def _adapters(kinds: Iterable[str]) -> list[ModuleType]:
    """The modules that adapters of these kinds are made of, from the ground up."""
    found = {"lavi_bridge.text": None, "lavi_bridge.adapters.base": None}
    for kind in kinds:
        for cls in reversed(ADAPTERS[kind].__mro__):
            if not cls.__module__.startswith(f"{PACKAGE}."):
                continue
            blocks = f"{PACKAGE}.adapters.blocks"
            imported = ast.walk(ast.parse(_source(import_module(cls.__module__))))
            if any(isinstance(node, ast.ImportFrom) and node.module == blocks for node in imported):
                found[blocks] = None
            found[cls.__module__] = None
    return [import_module(name) for name in found]


def _source(module: ModuleType) -> str:
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _definitions(module: ModuleType, imports: list[ast.Import | ast.ImportFrom]) -> Iterator[str]:
    """The classes, functions and constants of a module as they are written; its imports are added.

    A docstring after a constant stays with it.
    """
    source = _source(module)
    body = ast.parse(source).body
    for place, node in enumerate(body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        elif isinstance(node, ast.ClassDef):
            yield _class(node, source)
        elif isinstance(node, ast.FunctionDef):
            yield _segment(node, source)
        elif isinstance(node, ast.Assign):
            following = body[place + 1] if place + 1 < len(body) else None
            text = _segment(node, source)
            yield f"{text}\n{_segment(following, source)}" if _told(following) else text


def _told(node: ast.stmt | None) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _class(node: ast.ClassDef, source: str) -> str:
    """A class as it is written, without the members that nothing here asks for."""
    lines, dropped = source.splitlines(), set[int]()
    for place, member in enumerate(node.body):
        if _left_out(node.name, member):
            following = node.body[place + 1] if place + 1 < len(node.body) else None
            last = following if _told(following) else member
            start = min([member.lineno, *(d.lineno for d in getattr(member, "decorator_list", []))])
            blank = start > 1 and not lines[start - 2].strip()
            dropped |= set(range(start - blank, (last.end_lineno or start) + 1))  # type: ignore[union-attr]
    decorators = [
        f"@{name}" for d in node.decorator_list if "register" not in (name := ast.unparse(d))
    ]
    numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return "\n".join([*decorators, *(lines[n - 1] for n in numbers if n not in dropped)]).rstrip()


def _left_out(cls: str, member: ast.stmt) -> bool:
    if isinstance(member, ast.AnnAssign):
        name = ast.unparse(member.target)
        return cls in KEPT and name not in KEPT[cls]
    if not isinstance(member, ast.FunctionDef):
        return False
    return member.name in NOT_READ or (cls in KEPT and member.name not in KEPT[cls])


def _segment(node: ast.AST | None, source: str) -> str:
    """A statement as it is written, with its decorators."""
    assert node is not None
    lines = source.splitlines()
    decorators = getattr(node, "decorator_list", [])
    start = min([node.lineno, *(d.lineno for d in decorators)])  # type: ignore[attr-defined]
    return "\n".join(lines[start - 1 : node.end_lineno])  # type: ignore[attr-defined]


def _used(parts: list[str]) -> list[str]:
    """Definitions without constants that nothing reads, and without a registry."""
    kept = []
    for place, part in enumerate(parts):
        names = re.match(r"([\w, ]+?)(?:: [^=]+)? = ", part)
        if names and not part.startswith(("class ", "def ", "@")):
            others = "\n".join(parts[:place] + parts[place + 1 :])
            if not any(re.search(rf"\b{n.strip()}\b", others) for n in names[1].split(",")):
                continue
        kept.append(part)
    return kept


def _imports(nodes: Iterable[ast.Import | ast.ImportFrom], body: str) -> str:
    """The imports that a source needs, sorted; those of this package and of the future aside."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        used = {
            alias.name
            for alias in node.names
            if re.search(rf"\b{alias.asname or alias.name.partition('.')[0]}\b", body)
        }
        if isinstance(node, ast.Import):
            found |= {f"import {name}": set() for name in used}
        elif used and node.module and node.module.partition(".")[0] not in (PACKAGE, "__future__"):
            found.setdefault(f"from {node.module} import ", set()).update(used)
    sections: tuple[list[str], list[str]] = ([], [])
    for line in sorted(found, key=lambda line: (line.startswith("from"), line)):
        names = ", ".join(sorted(found[line], key=_by_type))
        module = line.split()[1].partition(".")[0]
        sections[module not in sys.stdlib_module_names].append(line + names)
    return "\n\n".join("\n".join(section) for section in sections if section)


def _by_type(name: str) -> tuple[bool, str]:
    """Classes before functions."""
    return name[0].islower(), name
