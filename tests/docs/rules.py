"""What a test does with each piece of code in the pages, by rules that are all here."""

import ast
import dataclasses
import re
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tyro

from lavi_bridge.cli.completion import SETTINGS, flags
from lavi_bridge.cli.train import train_config
from lavi_bridge.errors import BridgeError
from lavi_bridge.evaluate.options import EvaluateConfig
from lavi_bridge.prompts.catalogue import SUITES, WORLD
from lavi_bridge.train.options import TrainConfig
from tests.docs.models import HUB
from tests.docs.pages import PAGES, ROOT, SHELLS, SPAN, Block, Command, blocks, commands, sentences

Kind = Literal["run", "shortened", "stand-in", "planned", "parsed", "others"]
KINDS: dict[Kind, str] = {
    "run": "run as written",
    "shortened": "run with fewer steps, pictures or prompts; as written by name (-m slow) or never",
    "stand-in": "run with tiny models of the same families in the place of the Hub's",
    "planned": "parsed, and planned: from the real models' configs, or job by job",
    "parsed": "parsed or compiled, every flag and value checked; the reason says why no more",
    "others": "of other programs: the shell's grammar, targets, extras and paths are checked",
}
SHORTER: dict[str, tuple[str, ...]] = {
    "train": (
        *("--steps", "1", "--validate-every", "0", "--sample-every", "0"),
        *("--no-warm-start-report", "--tracker", "none"),
    ),
    "train --warm-start": ("--warm-start", "1"),
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
SLOW_ENOUGH = 600
"""Training steps that `make slow` makes of one line, warm start included."""
NOT_HERE = {"openai": "a client of the servers, which is no need of ours"}
"""Packages that Python blocks import and tests do not have."""
PROGRAMS = {
    "cp": "the shell's own",
    "eval": "the shell's own",
    ".": "the shell's own",
    "python3": "makes an environment",
    "hf": "the Hub's own command",
    "vllm": "a server that needs a GPU",
    "sglang": "a server that needs a GPU",
    "curl": "asks a server",
    "jq": "reads what a server answers",
    "base64": "reads what a server answers",
}
"""Other programs, of which nothing can be checked but that the shell reads the line."""
FLAGS_OF_OTHERS = {
    "--fp32-unet": "ComfyUI",
    "--nproc_per_node": "torchrun",
    "--logdir": "TensorBoard",
    "--editable": "pip",
    "--warmup-resolutions": "SGLang",
    "--dit-precision": "SGLang",
    "--diffusers-call-kwargs": "vLLM-Omni",
    "--enable-cpu-offload": "vLLM-Omni",
    "--enable-layerwise-offload": "vLLM-Omni",
    "--enable-torch-compile": "SGLang",
    "--enforce-eager": "vLLM-Omni",
    "--only": "benchmarks/free_form.py",
    "--bundle": "benchmarks/free_form.py",
    "--before": "benchmarks/warm_step.py",
    "--needs": "benchmarks/free_form.py",
}
"""Flags in sentences that are not ours, and whose they are."""
EXTRAS = re.compile(r"\[([\w-]+)\]")
LANGUAGES = {"", "text", "python", "json", "yaml", "toml", *SHELLS}
"""What the fences of pages say; a test does not know what to do with another."""
OF_RECIPES = {"google-t5/t5-small", "google-t5/t5-base", "meta-llama/Llama-2-7b-hf"}
"""Models of the Hub that `reproduce --full` takes, and no page names."""


@dataclass(frozen=True)
class Fate:
    """What is done with one piece of code, and why not more."""

    kind: Kind
    why: str = ""


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
    def looks(self) -> bool:
        """Whether it looks at what lies in the page's folder."""
        return self.runs or self.fate.kind == "planned" or self.names_bridges

    @property
    def names_bridges(self) -> bool:
        """Whether what is only parsed names bridges or image models, which can be looked for."""
        named = self.args[:1] in (["page"], ["evaluate"])
        return named and self.block is not None and self.fate.kind == "parsed"

    @property
    def text(self) -> str:
        return self.code.text if isinstance(self.code, Block) else " ".join(self.code.words)

    @property
    def words(self) -> tuple[str, ...]:
        """Of a command of whatever program."""
        return self.code.words if isinstance(self.code, Command) else ()

    @property
    def block(self) -> Block | None:
        """The block that it is, or stands in."""
        return self.code if isinstance(self.code, Block) else self.code.block

    @property
    def args(self) -> list[str]:
        """What follows `lavi-bridge`; nothing for all else."""
        return (self.code.arguments or []) if isinstance(self.code, Command) else []

    @property
    def settings(self) -> Any:
        """What the parser makes of a command of ours; None for all else."""
        return None if unparsed(self.args) else parsed(tuple(self.args), self.code.page)


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
    if name != "train":
        return _parsed(name, (*given, *filled(name, args)))
    with TemporaryDirectory() as folder:
        for at, arg in enumerate(given):
            if arg.endswith((".yaml", ".yml")):
                shown = shown_as(arg, page)
                if shown:
                    Path(folder, "shown.yaml").write_text(shown, encoding="utf-8")
                given[at] = f"{folder}/shown.yaml" if shown else str(ROOT / arg)
        if abbreviated(args, page):
            given = [arg for arg in given if not arg.endswith((".yaml", ".yml"))]
            given += filled(name, args)
        return _parsed(name, tuple(given))


@cache
def _parsed(name: str, args: tuple[str, ...]) -> Any:
    if name == "train":
        return train_config(list(args))
    return tyro.cli(SETTINGS[name], args=args, prog=f"lavi-bridge {name}")


def abbreviated(args: tuple[str, ...], page: str) -> bool:
    """Whether a line leaves out what it had to say: with an ellipsis, or in a file that nobody
    sees."""
    files = [arg for arg in args if arg.endswith((".yaml", ".yml")) and args[0] == "train"]
    return "…" in args or any(
        not (ROOT / file).is_file() and not shown_as(file, page) for file in files
    )


def filled(name: str, args: tuple[str, ...]) -> list[str]:
    """The flags that an abbreviated line has to have and has not."""
    if name != "train" and "…" not in args:
        return []
    return [word for flag in REQUIRED.get(name, ()) if flag not in args for word in (flag, "x")]


def shown_as(file: str, page: str) -> str:
    """What a page shows as a file; nothing where it does not."""
    return next(
        (b.text for b in every_block() if b.page == page and b.declared == f"file {file}"), ""
    )


REQUIRED = {
    "train": ("--language", "--vision", "--data", "--out"),
    "evaluate": ("--suites",),
    "export": ("--out",),
}


def unparsed(args: list[str]) -> bool:
    """Whether there is nothing to parse: a command's mere name, or a question of help."""
    return len(args) <= 1 or args[-1] in ("--help", "-h", "--version") or args in NAMED


NAMED = [["zoo", "build"], ["zoo", "score"]]


# ---- commands


def fate(command: Command) -> Fate:
    """What is done with a command: the first rule that fits."""
    args = command.arguments
    if args is None:
        return Fate("others", PROGRAMS.get(Path(command.words[0]).name, ""))
    if command.block is None:
        return Fate("parsed", "it stands in a sentence")
    if command.block.declared.startswith("parsed: "):
        return Fate("parsed", command.block.declared.removeprefix("parsed: "))
    if abbreviated(tuple(args), command.page):
        return Fate("parsed", "it is abbreviated")
    if args[:1] in (["page"], ["demo"], ["zoo"]):
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
    if fetched := {*said} & {*SUITES} - {*WORLD} or getattr(settings, "reference", None):
        assert fetched
        return Fate("parsed", "prompts or weights of metrics are fetched")
    if any(word.startswith("pip:") or word in NEEDS_PACKAGE for word in said):
        return Fate("parsed", "a language model from a package that only the demo installs")
    if "cuda" in said or command.several:
        return Fate("parsed", "one GPU or several")
    if said & HUB.keys():
        if args[0] in ("train", "plan", "cache"):
            return Fate("planned", "models of the Hub")
        return Fate("stand-in", "models of the Hub")
    return Fate("shortened" if shorter(args, settings) else "run")


BROKEN = Fate("parsed", "it is broken")
LONG = {
    "page": "it serves until it is stopped; tests/page drives it",
    "demo": "five minutes; tests/zoo/test_demo.py has it",
    "zoo": "hours of training; tests/zoo has it",
}
NEEDS_PACKAGE = {"zoo:minilm-tiny-sd"}
"""Bundled bridges to a language model that is not bundled."""


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
    if not args:
        return []
    if args[0] == "push" and settings.evaluation:
        return []  # which has pictures
    if args[0] == "train" and settings.steps < 2:  # a start without images, perhaps
        return ["--no-warm-start-report", *SHORTER["train --warm-start"]]
    added = [*SHORTER.get(args[0], ())]
    if "--recipe" in args:
        added += SHORTER["train --recipe"]
    if args[0] == "train" and settings.warm_start:
        added += SHORTER["train --warm-start"]
    return added


def as_written(item: Item) -> bool:
    """Whether `make slow` runs what `make test` shortens as it is written."""
    if item.fate.kind != "shortened" or declared(item) == "long":
        return False
    settings = item.settings
    if isinstance(settings, TrainConfig):
        return settings.steps + settings.warm_start <= SLOW_ENOUGH
    return not isinstance(settings, EvaluateConfig)  # whose hundreds of pictures take minutes


def declared(item: Item) -> str:
    """What the comment before the fence says."""
    return item.block.declared if item.block else ""


# ---- Python


def fate_of_python(block: Block) -> Fate:
    """What is done with a Python block: the first rule that fits."""
    try:
        tree = ast.parse(block.text, block.id)
    except SyntaxError:
        return BROKEN
    if block.declared.startswith("parsed: "):
        return Fate("parsed", block.declared.removeprefix("parsed: "))
    for name in imported(tree):
        if name in NOT_HERE:
            return Fate("parsed", f"{name}: {NOT_HERE[name]}")
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    if "cuda" in texts:
        return Fate("parsed", "one GPU or several")
    if texts & HUB.keys():
        return Fate("stand-in", "models of the Hub")
    return Fate("shortened" if Shortened.of(block) else "run")


def imported(tree: ast.Module) -> Iterator[str]:
    """The packages that a block imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


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


# ---- sentences


def flags_in_sentences() -> dict[str, list[str]]:
    """The flags that sentences name, and on which pages."""
    found: dict[str, list[str]] = {}
    for path in PAGES:
        for span in SPAN.findall(sentences(path)):
            for flag in re.findall(r"(?<!\S)--[\w-]+", span):
                found.setdefault(flag, []).append(str(path.relative_to(ROOT)))
    return found


def known_flags() -> set[str]:
    """All flags of all commands of ours."""
    known = {flag for each in SETTINGS.values() for given in flags(each) for flag in given}
    return known | {"--help", "--version"}


# ---- all of it


def items(path: Path) -> list[Item]:
    """The code of a page, in its order."""
    found = [
        Item(block, fate_of_python(block)) for block in blocks(path) if block.language == "python"
    ]
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


def shown_below(item: Item) -> str:
    """What a page shows right below a command's block: its output."""
    below = (
        block
        for block in every_block()
        if item.block and (block.page, block.follows) == (item.block.page, item.block.line)
    )
    return next((block.text for block in below if not block.language), "")


def extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def counts() -> str:
    """How much code there is and what becomes of it, for people."""
    found = everything()
    groups = {
        "Python blocks": [item for item in found if isinstance(item.code, Block)],
        "commands in blocks": [item for item in found if item.words and item.block],
        "commands in sentences": [item for item in found if item.words and not item.block],
    }
    lines = []
    for what, group in groups.items():
        lines.append(f"{len(group):4} {what}")
        for kind, meaning in KINDS.items():
            whys = [item.fate.why for item in group if item.fate.kind == kind]
            lines += [f"{len(whys):8} {meaning}"] * bool(whys)
            lines += [f"{whys.count(why):12} {why}" for why in dict.fromkeys(whys) if why]
    return "\n".join(lines)
