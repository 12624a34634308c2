"""The folders that code in pages runs in: what a page presupposes lies there, made when named.

A page has one folder, in which its code runs in the page's order, and one namespace for its Python.
"""

import ast
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavi_bridge import Bridge
from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.cli import main as cli
from lavi_bridge.languages import LANGUAGES
from lavi_bridge.metrics import METRICS
from lavi_bridge.registry import Registry
from lavi_bridge.shapes.world import ShapesWorld
from lavi_bridge.train.warm_start import predictions
from lavi_bridge.visions import VISIONS
from tests import hub
from tests.docs.models import HUB, put_tiny
from tests.docs.pages import ROOT, Block
from tests.docs.rules import Item, Shortened, declared, every_block, everything, shorter

REGISTRIES: tuple[Registry[Any], ...] = (LANGUAGES, VISIONS, ADAPTERS, METRICS)


class Made:
    """What is presupposed, made once for all pages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str) -> Path:
        path = self.root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            PRESUPPOSED[name](path, self)
        return path


Maker = Callable[[Path, Made], None]


def bridge(language: str = "zoo:tiny-t5-small", **options: Any) -> Maker:
    """Makes a small bridge with `zoo:tiny-sd`."""

    def make(path: Path, _: Made) -> None:
        Bridge.connect(language, "zoo:tiny-sd", rank=2, device="cpu", **options).save(path)

    return make


def same_as(name: str) -> Maker:
    """Makes a copy of another."""

    def make(path: Path, made: Made) -> None:
        copy(made(name), path)

    return make


def captions(path: Path, made: Made) -> None:
    """A caption file, and its pictures in a folder beside it."""
    folder = path.with_name(f"{path.stem}-pictures")
    pictures(folder, made)
    lines = [
        f"{file.parent.name}/{file.name}\ta {file.stem} circle" for file in folder.glob("*.png")
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pictures(folder: Path, _: Made) -> None:
    """A folder of pictures with a caption each."""
    folder.mkdir(parents=True)
    for number in range(24):
        colour = ("red", "green", "blue", "orange", "purple", "teal")[number % 6]
        Image.new("RGB", (64, 64), colour).save(folder / f"{colour}-{number}.png")
        (folder / f"{colour}-{number}.txt").write_text(f"a {colour} circle")


def lora(path: Path, made: Made) -> None:
    """What somebody else made for the image model: the LoRA of a bridge, in its file."""
    shutil.copy(made("runs/t5") / "vision_lora" / "adapter_model.safetensors", path)


def text(*lines: str) -> Maker:
    def make(path: Path, _: Made) -> None:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    return make


def by_command(*args: str) -> Maker:
    """Makes what a command of ours writes."""

    def make(path: Path, made: Made) -> None:
        made("runs/t5")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(made.root)
            cli.run([*args, "--out", str(path)])

    return make


PRESUPPOSED: dict[str, Maker] = {
    "runs/t5": bridge(),
    "runs/fusion": bridge(adapter="fusion"),
    "runs/llama": bridge("zoo:tiny-llama", tokens=64),
    "runs/demo/llama": same_as("runs/llama"),
    "runs/first": same_as("runs/llama"),
    "runs/mine": same_as("runs/llama"),
    "this folder": same_as("runs/t5"),
    "runs/evaluation": by_command(
        *("evaluate", "runs/t5", "--suites", "shapes", "--limit", "6", "--steps", "1")
    ),
    "exported": by_command("export", "runs/t5"),
    "captions.tsv": captions,
    "grocery/captions_train.tsv": captions,
    "coco.tsv": captions,
    "journeydb": pictures,
    "images/": pictures,
    "captions.txt": text("a red circle", "two blue squares", "a green star above a house"),
    "pairs.tsv": text("could you paint me an aqua disc\ta cyan circle"),
    "style.safetensors": lora,
    "people.safetensors": lora,
}
"""What pages name and nobody has, by the name: it is there when a page's code names it. A page that
makes it itself finds it all the same, where a test runs that part alone."""
NAMES: dict[str, Callable[[Made], Any]] = {
    "bridge": lambda made: Bridge.load(made("runs/t5"), device="cpu"),
}
"""Variables that Python blocks take as given."""


class Workspace:
    """The folder and the namespace of a page."""

    def __init__(self, page: str, folder: Path, made: Made) -> None:
        self.page, self.folder, self.made = page, folder, made
        self.items = [item for item in everything() if item.code.page == page]
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.done: set[int] = set()
        self.written: set[Path | None] = set()
        """What commands of the page have made."""
        self.registered: list[dict[str, Any]] = [{} for _ in REGISTRIES]
        folder.mkdir(parents=True)
        looking = [item for item in self.items if item.looks]
        files = {
            block.declared.removeprefix("file "): block.text
            for block in every_block()
            if block.page == page and block.declared.startswith("file ")
        }
        said = "\n".join([*(item.text for item in looking), *files.values()])
        told = said + "".join(str(vars(item.settings)) for item in looking if item.settings)
        for name in PRESUPPOSED:
            if re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", said):
                copy(made(name), folder / name)
                if PRESUPPOSED[name] is captions:
                    beside = Path(name).with_name(f"{Path(name).stem}-pictures")
                    copy(made.root / beside, folder / beside)
        for name in HUB:
            if name in told or "--full" in told:
                put_tiny(name, folder, made.root / "tiny")
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")

    def run(self, item: Item, *, whole: bool = False) -> None:
        """Run a piece of code after what comes before it on its page.

        Args:
            whole: as it is written, also where it is long; what comes before is shortened.
        """
        here = self.items.index(item)
        for at, earlier in enumerate(self.items[:here]):
            if earlier.runs and at not in self.done and "slow" not in declared(earlier):
                self.done.add(at)
                self._run(earlier)
        self.done.add(here)
        self._run(item, whole=whole)

    def _run(self, item: Item, *, whole: bool = False, more: Sequence[str] = ()) -> None:
        with ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.chdir(self.folder)
            patch.setenv("HOME", str(self.folder))
            if publishes(item):
                stack.enter_context(hub.in_its_place(self.folder / "hub"))
            stack.enter_context(self._own_registries())
            if not whole:
                few_captions(patch)
            if isinstance(item.code, Block):
                self._python(item.code, whole=whole)
            else:
                self._command(item, whole=whole, more=more)

    def plan(self, item: Item) -> None:
        """Have a command say what it would do, and stop."""
        self._run(item, more=("--dry-run",))

    @contextmanager
    def _own_registries(self) -> Iterator[None]:
        """What a page registers is known to its own code alone."""
        before = [registry._entries for registry in REGISTRIES]
        for registry, known, own in zip(REGISTRIES, before, self.registered, strict=True):
            registry._entries = known | own
        try:
            yield
        finally:
            for at, (registry, known) in enumerate(zip(REGISTRIES, before, strict=True)):
                self.registered[at] = {
                    name: entry for name, entry in registry._entries.items() if name not in known
                }
                registry._entries = known

    def _python(self, block: Block, *, whole: bool) -> None:
        tree = None if whole else Shortened.of(block)
        # a traceback names the page's line
        lines = ast.increment_lineno(tree or ast.parse(block.text), block.line)
        code = compile(lines, str(ROOT / block.page), "exec")
        for name, make in NAMES.items():
            if name in code.co_names and name not in self.namespace:
                self.namespace[name] = make(self.made)
        exec(code, self.namespace)

    def _command(self, item: Item, *, whole: bool, more: Sequence[str]) -> None:
        # an absolute path lies in the folder, too
        args = [f"{self.folder}{arg}" if arg.startswith("/") else arg for arg in item.args]
        out = getattr(item.settings, "out", None)
        if args[:1] in (["train"], ["evaluate"]) and out and out not in self.written:
            # what it makes is not there before
            shutil.rmtree(self.folder / out, ignore_errors=True)
        self.written.add(out)
        if not whole:
            args += shorter(args, item.settings)
        cli.run([*args, *more])


def few_captions(patch: pytest.MonkeyPatch) -> None:
    """Give a warm start on the shapes world fewer captions and pictures."""
    captions, retold = ShapesWorld.captions, ShapesWorld.retold
    patch.setattr(ShapesWorld, "captions", lambda self, count: captions(self, min(count, 500)))
    patch.setattr(
        ShapesWorld, "retold", lambda self, count, **how: retold(self, min(count, 300), **how)
    )
    patch.setattr(predictions, "BANK", 16)
    patch.setattr(predictions, "BANK_STEPS", 3)


def publishes(item: Item) -> bool:
    """Whether it writes to the Hub."""
    if isinstance(item.code, Block):
        return "push(" in item.code.text
    return item.args[:1] == ["push"]


def copy(there: Path, here: Path) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    if there.is_dir():
        shutil.copytree(there, here, dirs_exist_ok=True)
    else:
        shutil.copy(there, here)
