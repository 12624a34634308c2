"""What a test does with each piece of code in the pages, by rules that are all here."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tyro

from lavi_bridge.cli.completion import SETTINGS
from lavi_bridge.cli.train import train_config
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.prompts.catalogue import SUITES, WORLD
from lavi_bridge.train.options import TrainConfig
from tests.docs.models import HUB
from tests.docs.pages import PAGES, ROOT, SHELLS, Block, Command, blocks, commands

Kind = Literal["run", "shortened", "stand-in", "planned", "parsed", "others"]
KINDS: dict[Kind, str] = {
    "run": "run as written",
    "shortened": "run with fewer steps, pictures or prompts; as written by name (-m slow) or never",
    "stand-in": "run with tiny models of the same families in the place of the Hub's",
    "planned": "parsed; planned by name, from the real models' configs, or job by job",
    "parsed": "parsed or compiled, every flag and value checked; the reason says why no more",
    "others": "of other programs: the shell's grammar and the project's files are checked",
}
SHORTER: dict[str, tuple[str, ...]] = {
    "train": ("--validate-every", "0", "--sample-every", "0", "--tracker", "none"),
    "train --steps": ("--steps", "1"),
    "train --warm-start": ("--warm-start", "1", "--no-warm-start-report"),
    "train --recipe": ("--resolution", "64"),  # of the tiny models, not of the paper's
    "generate": ("--steps", "1"),
    "influence": ("--steps", "1"),
    "evaluate": ("--steps", "1", "--limit", "2"),
    "expand": ("--limit", "2", "--max-new-tokens", "4"),
    "push": ("--steps", "1", "--samples", "1"),
}
"""What is appended to a command, and so overrides what it says itself."""
SHORTER_CALLS: dict[str, dict[str, Any]] = {
    "warm_start": {"steps": 1},
    "generate": {"steps": 1},
    "pipe": {"num_inference_steps": 2},
    "PushConfig": {"samples": 0},
}
"""Keywords that calls in Python get, likewise, by the name of what is called."""
SLOW_ENOUGH = 500
"""Training steps that `make slow` makes of one line, warm start included."""
LONG = {
    "page": "it serves until it is stopped; tests/page drives it",
    "demo": "five minutes; tests/zoo/test_demo.py has it",
    "zoo": "hours of training; tests/zoo has it",
}
PACKAGED = ("pip:", "zoo:minilm")
"""How the names of models begin that need a package which only the demo installs."""


@dataclass(frozen=True)
class Fate:
    """What is done with one piece of code, and why not more."""

    kind: Kind
    why: str = ""


BROKEN = Fate("parsed", "it is broken")


@dataclass(frozen=True)
class Item:
    """One piece of code: a Python block, or a command."""

    code: Block | Command
    fate: Fate

    @property
    def id(self) -> str:
        return self.code.id

    @property
    def runs(self) -> bool:
        return self.fate.kind in ("run", "shortened", "stand-in")

    @property
    def text(self) -> str:
        return self.code.text if isinstance(self.code, Block) else " ".join(self.code.words)

    @property
    def block(self) -> Block | None:
        """The block that it is, or stands in."""
        return self.code if isinstance(self.code, Block) else self.code.block

    @property
    def declared(self) -> str:
        """What the comment before the fence says."""
        return self.block.declared if self.block else ""

    @property
    def args(self) -> list[str]:
        """What follows `lavi-bridge`; nothing for all else."""
        return (self.code.arguments or []) if isinstance(self.code, Command) else []

    @property
    def settings(self) -> Any:
        """What the parser makes of a command of ours; None for all else."""
        return None if unparsed(self.args) else parsed(tuple(self.args), self.code.page)


# ---- commands


def fate(command: Command) -> Fate:
    """What is done with a command: the first rule that fits."""
    args = command.arguments
    if args is None:
        return Fate("others")
    if command.block is None:
        return Fate("parsed", "it stands in a sentence")
    if command.block.declared.startswith("parsed: "):
        return Fate("parsed", command.block.declared.removeprefix("parsed: "))
    if abbreviated(tuple(args), command.page):
        return Fate("parsed", "it is abbreviated")
    if args[:1] and args[0] in LONG:
        return Fate("parsed", LONG[args[0]])
    if unparsed(args):
        return Fate("run")
    try:
        with redirect_stderr(StringIO()):
            settings = parsed(tuple(args), command.page)
    except (SystemExit, BridgeError):  # a test of its own says why
        return BROKEN
    if args[0] == "reproduce":
        return Fate("planned", "it trains and draws for hours or days")
    said = set(told(settings))
    if fetches(settings) or said & (SUITES.keys() - {*WORLD}):
        return Fate("parsed", "prompts or weights of metrics are fetched")
    if any(word.startswith(PACKAGED) for word in said):
        return Fate("parsed", "a language model from a package that only the demo installs")
    if "cuda" in said or command.several:
        return Fate("parsed", "one GPU or several")
    if said & HUB.keys():
        if args[0] in ("train", "plan", "cache"):
            return Fate("planned", "models of the Hub")
        return Fate("stand-in", "models of the Hub")
    return Fate("shortened" if shorter(args, settings) else "run")


def fetches(settings: Any) -> bool:
    """Whether an evaluation needs weights of metrics."""
    if not isinstance(settings, EvaluateConfig):
        return False
    exact = all(metric.startswith("shapes") for metric in settings.metrics)
    return not exact or settings.judge is not None or settings.reference is not None


@cache
def parsed(args: tuple[str, ...], page: str = "") -> Any:
    """The settings of a command of ours, by its own parser; nothing is done with them.

    Args:
        page: which shows the YAML file that `train` is given, if it is none of the project's.

    Raises:
        SystemExit: it has no such flag, or a value is not of its kind.
        BridgeError: the settings refuse a value.
    """
    name = " ".join(args[:2]) if " ".join(args[:2]) in SETTINGS else args[0]
    given = [arg for arg in args[len(name.split()) :] if arg != "…"]
    if abbreviated(args, page):
        given = [arg for arg in given if not is_config(args, arg)]
        for field in dataclasses.fields(SETTINGS[name]):
            flag = f"--{field.name.replace('_', '-')}"
            if has_to_be_given(field) and flag not in given:
                given += [flag, "x"]
    with TemporaryDirectory() as folder:
        for at, arg in enumerate(given):
            if is_config(args, arg):
                shown = shown_as(arg, page)
                if shown:
                    Path(folder, "shown.yaml").write_text(shown, encoding="utf-8")
                given[at] = f"{folder}/shown.yaml" if shown else str(ROOT / arg)
        if name == "train":
            return train_config(given)
        return tyro.cli(SETTINGS[name], args=given, prog=f"lavi-bridge {name}")


def abbreviated(args: tuple[str, ...], page: str) -> bool:
    """Whether a line leaves out what it had to say: with an ellipsis, or in a file that nobody
    sees."""
    files = [arg for arg in args if is_config(args, arg)]
    return "…" in args or any(
        not (ROOT / file).is_file() and not shown_as(file, page) for file in files
    )


def has_to_be_given(field: dataclasses.Field[Any]) -> bool:
    """Whether a command needs this flag."""
    defaults = {field.default, field.default_factory}
    return defaults == {dataclasses.MISSING} and not str(field.type).startswith("Positional")


def is_config(args: tuple[str, ...], arg: str) -> bool:
    return args[:1] == ("train",) and arg.endswith((".yaml", ".yml"))


def shown_as(file: str, page: str) -> str:
    """What a page shows as a file; nothing where it does not."""
    return files_of(page).get(file, "")


def unparsed(args: list[str]) -> bool:
    """Whether there is nothing to parse: a command's mere name, or a question of help."""
    return len(args) <= 1 or args[-1] in ("--help", "-h", "--version") or " ".join(args) in SETTINGS


def told(settings: Any) -> Iterator[str]:
    """All texts of settings, and of `NAME=PLACE,option=value` the parts."""
    for value in vars(settings).values():
        if dataclasses.is_dataclass(value):
            yield from told(value)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                yield from re.split(r"[=,]", each)


def shorter(args: list[str], settings: Any) -> list[str]:
    """What is appended to a command so that it is quick; nothing where it is."""
    if not args or (args[0] == "push" and settings.evaluation):  # which has pictures
        return []
    added = [*SHORTER.get(args[0], ())]
    if args[0] == "train":
        added += SHORTER["train --steps"] if settings.steps else ()
        added += SHORTER["train --warm-start"] if settings.warm_start else ()
        added += SHORTER["train --recipe"] if "--recipe" in args else ()
    return added


def as_written(item: Item) -> bool:
    """Whether `make slow` runs what is shortened otherwise as it is written."""
    if item.declared == "slow":
        return True
    if item.fate.kind != "shortened" or item.declared == "long":
        return False
    settings = item.settings
    if isinstance(settings, TrainConfig):
        return settings.steps + settings.warm_start <= SLOW_ENOUGH
    return not isinstance(settings, EvaluateConfig)  # whose hundreds of pictures take minutes


# ---- Python


def fate_of_python(block: Block) -> Fate:
    """What is done with a Python block: the first rule that fits."""
    try:
        tree = ast.parse(block.text, block.id)
    except SyntaxError:
        return BROKEN
    if block.declared.startswith("parsed: "):
        return Fate("parsed", block.declared.removeprefix("parsed: "))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    if "cuda" in texts:
        return Fate("parsed", "one GPU or several")
    if texts & HUB.keys():
        return Fate("stand-in", "models of the Hub")
    return Fate("shortened" if Shortened.of(block) else "run")


class Shortened(ast.NodeTransformer):
    """Gives calls the keywords of SHORTER_CALLS."""

    def __init__(self) -> None:
        self.changed = False

    @classmethod
    def of(cls, block: Block) -> ast.Module | None:
        """The block with fewer steps; None where there is nothing to shorten."""
        shortened = cls()
        tree = shortened.visit(ast.parse(block.text, block.id))
        return ast.fix_missing_locations(tree) if shortened.changed else None

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        for name, value in SHORTER_CALLS.get(called, {}).items():
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != name]
            node.keywords.append(ast.keyword(name, ast.Constant(value)))
            self.changed = True
        return node


# ---- all of it


def items(path: Path) -> list[Item]:
    """The code of a page, in its order."""
    python = [block for block in blocks(path) if block.language == "python"]
    found = [Item(block, fate_of_python(block)) for block in python]
    found += [Item(command, fate(command)) for command in commands(path)]
    return sorted(found, key=lambda item: item.code.line)


@cache
def everything() -> list[Item]:
    return [item for path in PAGES for item in items(path)]


@cache
def every_block() -> list[Block]:
    return [block for path in PAGES for block in blocks(path)]


def shell_blocks() -> list[Block]:
    return [block for block in every_block() if block.language in SHELLS]


@cache
def files_of(page: str) -> dict[str, str]:
    """What a page shows as files, by their names."""
    shown = [b for b in every_block() if b.page == page and b.declared.startswith("file ")]
    return {block.declared.removeprefix("file "): block.text for block in shown}


def shown_below(item: Item) -> str:
    """What a page shows right below a command's block: its output."""
    below = (
        block
        for block in every_block()
        if item.block and (block.page, block.follows) == (item.block.page, item.block.line)
    )
    return next((block.text for block in below if not block.language), "")


@cache
def quick() -> list[Item]:
    """What `make test` runs: Python, and the README's commands that do what no earlier one does, or
    any that write what Python or they need below."""
    seen: set[str] = set()
    found = []
    for item in everything():
        if not item.runs or item.declared == "slow":
            continue
        new = features(item) - seen
        seen |= new
        of_readme = item.code.page == "README.md" and bool(new)
        if of_readme or isinstance(item.code, Block) or is_needed(item):
            found.append(item)
    return found


def features(item: Item) -> set[str]:
    """A command, its flags, with their choices, and what entries set; not what is shortened."""
    found = re.findall(r"^\S+|,[\w-]+=|--[\w-]+(?: [a-z]+(?!\S))?", " ".join(item.args))
    return {*found} - {*shorter(item.args, item.settings)}


def is_needed(item: Item) -> bool:
    """Whether code further down the page names what a command writes."""
    out = getattr(item.settings, "out", None)
    return out is not None and any(
        str(out) in later.text
        for later in everything()
        if later.runs and later.code.page == item.code.page and later.code.line > item.code.line
    )


def counts() -> str:
    """How much code there is and what becomes of it, for people."""
    found = everything()
    groups = {
        "Python blocks": [item for item in found if isinstance(item.code, Block)],
        "commands in blocks": [i for i in found if isinstance(i.code, Command) and i.block],
        "commands in sentences": [i for i in found if isinstance(i.code, Command) and not i.block],
    }
    lines = []
    for what, group in groups.items():
        lines.append(f"{len(group):4} {what}")
        for kind, meaning in KINDS.items():
            whys = [item.fate.why for item in group if item.fate.kind == kind]
            lines += [f"{len(whys):8} {meaning}"] * bool(whys)
            lines += [f"{whys.count(why):12} {why}" for why in dict.fromkeys(whys) if why]
    lines.append(f"{len(quick()):4} of them run in make test, the others in make slow")
    return "\n".join(lines)
