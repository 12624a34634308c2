"""Settings on the command line in groups, so that `--help` can be read from top to bottom."""

from __future__ import annotations

import ast
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from textwrap import dedent
from typing import Annotated, Any, TypeVar

import tyro

T = TypeVar("T")


def parse(default: T, groups: Mapping[str, Sequence[str]], args: Sequence[str], prog: str) -> T:
    """Read flags into a dataclass, whose fields the help shows under the titles of `groups`.

    Args:
        default: what no flag changes; `tyro.MISSING` stands for a flag that must be given.
        groups: of every field the title it comes under.

    Raises:
        SystemExit: the flags cannot be read, or ask for the help.
        BridgeError: the dataclass refuses the values.
    """
    cls = type(default)
    hints, texts = typing.get_type_hints(cls, include_extras=True), field_docs(cls)
    members, values = [], {}
    for number, (title, names) in enumerate(groups.items()):
        fields = [(n, Annotated[hints[n], tyro.conf.arg(help=texts[n])]) for n in names]
        group = make_dataclass(f"group{number}", fields)
        group.__doc__ = ""
        title_only = tyro.conf.arg(name=title), tyro.conf.OmitArgPrefixes
        named = Annotated[group, *title_only]  # type: ignore[valid-type]
        members.append((group.__name__, named))
        values[group.__name__] = group(*(getattr(default, name) for name in names))
    whole = make_dataclass(cls.__name__, members)
    whole.__doc__ = cls.__doc__
    found: Any = tyro.cli(whole, args=args, default=whole(**values), prog=prog)
    return cls(**{k: v for group in vars(found).values() for k, v in vars(group).items()})


def field_docs(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass, by field."""
    (tree,) = ast.parse(dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found
