"""What the pages hold: their fenced blocks, and the commands of ours in them and in sentences."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PLACES = ("*.md", "docs/**/*.md", "comfyui/**/*.md", "benchmarks/*.md", "src/**/*.md")
GENERATED = ("docs/reference/cli.md",)
"""Made of the settings that a test would compare it with; what it shows are synopses."""
PAGES = sorted(
    {path for place in PLACES for path in ROOT.glob(place)} - {ROOT / page for page in GENERATED}
)
SHELLS = ("sh", "bash", "shell", "console")
FENCE = re.compile(r"( *)(```+|~~~+) *([\w+-]*)")
DECLARED = re.compile(r" *<!-- code: (.+?) -->\s*")
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ENDS = {"&&", "||", ";", "|", "&", "(", ")"}
"""What ends a command of a shell."""
ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
METAVARIABLE = "COMMAND"
"""What stands for any command, as in `lavi-bridge COMMAND --help`."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str
    """Path below the project's folder."""
    line: int
    """Of the fence, from 1."""
    language: str
    text: str
    declared: str = ""
    """What the comment before the fence says."""
    follows: int | None = None
    """Line of the fence of the block right above, with nothing between them."""

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a shell block, or of a sentence."""

    page: str
    line: int
    words: tuple[str, ...]
    """As a shell reads them, without what redirects."""
    block: Block | None
    """None for one in a sentence."""

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def arguments(self) -> list[str] | None:
        """What follows `lavi-bridge`, by whatever it is started; None for other programs."""
        return ours(self.words)

    @property
    def several(self) -> bool:
        """Whether it is started as several processes."""
        return Path(self.words[0]).name in ("torchrun", "accelerate", "srun")


def ours(words: tuple[str, ...]) -> list[str] | None:
    """The arguments of `lavi-bridge`, `python -m lavi_bridge` or `torchrun … -m lavi_bridge`."""
    program = Path(words[0]).name
    if program == "lavi-bridge":
        return list(words[1:])
    starts = program.startswith("python") or program in ("torchrun", "accelerate")
    for at in range(1, len(words) - 1 if starts else 0):
        if words[at : at + 2] == ("-m", "lavi_bridge"):
            return list(words[at + 2 :])
    return None


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order; those of lists, too."""
    page = str(path.relative_to(ROOT))
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    declared, above, at = "", None, 0
    while at < len(lines):
        opened = FENCE.fullmatch(lines[at])
        if opened is None:
            comment = DECLARED.fullmatch(lines[at])
            declared = comment[1] if comment else declared if not lines[at].strip() else ""
            above = above if not lines[at].strip() else None
            at += 1
            continue
        first = at + 1
        at = first
        while at < len(lines) and lines[at].strip() != opened[2]:
            at += 1
        assert at < len(lines), f"{page}:{first}: the block does not end"
        text = dedent("\n".join(lines[first:at])) + "\n"
        found.append(Block(page, first, opened[3], text, declared, above))
        declared, above, at = "", first, at + 1
    return found


def commands(path: Path) -> list[Command]:
    """The commands of a page's shell blocks, and those of ours in its sentences."""
    page, shown = str(path.relative_to(ROOT)), blocks(path)
    found = [command for block in shown if block.language in SHELLS for command in typed(block)]
    text = sentences(path)
    for span in SPAN.finditer(text):
        if "\n\n" in span[1] or not re.match(r"(\S+\s)*?\S*lavi[-_]bridge\s", span[1]):
            continue
        line = text.count("\n", 0, span.start()) + 1
        for words in split(span[1].replace("\n", " ")):
            if ours(words) is not None:
                found.append(Command(page, line, words, None))
    return found


def sentences(path: Path) -> str:
    """A page without its blocks, whose lines stay, empty."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for block in blocks(path):
        for at in range(block.line - 1, block.line + block.text.count("\n") + 1):
            lines[at] = ""
    return "\n".join(lines)


def typed(block: Block) -> list[Command]:
    """The commands of a shell block, each at the line where it begins."""
    found, logical, begins = [], "", block.line + 1
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if not logical:
            begins = number
        logical += line.removeprefix("$ ") if block.language == "console" else line
        if logical.endswith("\\"):
            logical = logical[:-1]
            continue
        try:
            several = split(logical)
        except ValueError:  # a quote that goes on
            logical += "\n"
            continue
        found += [Command(block.page, begins, words, block) for words in several]
        logical = ""
    assert not logical, f"{block.page}:{begins}: the command does not end"
    return found


def split(line: str) -> list[tuple[str, ...]]:
    """The commands of one line, those inside `$(…)` first, without redirections and settings of
    the environment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[tuple[str, ...]] = []
    words: list[str] = []
    skips = False
    for word in [*lexer, ";"]:
        if skips:
            skips = False
        elif word in ENDS:
            if words:
                found.append(tuple(words))
            words = []
        elif set(word) <= {">", "<", "&"}:
            skips = True
        elif words or not ASSIGNMENT.fullmatch(word):
            for inner in re.findall(r"\$\((lavi-bridge .*?)\)", word):
                found += split(inner)
            words.append(word)
    return found
