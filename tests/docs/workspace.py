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
from tests.docs.rules import Item, Shortened, everything, files_of, shorter

REGISTRIES: tuple[Registry[Any], ...] = (LANGUAGES, VISIONS, ADAPTERS, METRICS)


class Made:
    """What is presupposed, made once for all pages."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str) -> Path:
        """Where one thing lies, by its name in pages; those of one form are one."""
        form = form_of(name)
        assert form is not None
        path = self.root / str([*PRESUPPOSED].index(form)) / "made"
        if not path.exists():
            path.parent.mkdir(parents=True)
            PRESUPPOSED[form](path, self)
        return path

    def put(self, name: str, folder: Path) -> None:
        """Put one thing into a page's folder, with what lies beside it."""
        made = self(name)
        for path in made.parent.iterdir():
            copy(path, folder / name if path == made else (folder / name).with_name(path.name))


Maker = Callable[[Path, Made], None]


def bridge(**options: Any) -> Maker:
    """Makes a small bridge from `zoo:tiny-t5-small` to `zoo:tiny-sd`."""

    def make(path: Path, _: Made) -> None:
        pair = ("zoo:tiny-t5-small", "zoo:tiny-sd")
        Bridge.connect(*pair, rank=2, tokens=64, device="cpu", **options).save(path)

    return make


def captions(path: Path, made: Made) -> None:
    """A caption file, and its pictures in a folder beside it."""
    pictures(path.with_name("pictures"), made)
    files = path.with_name("pictures").glob("*.png")
    lines = [f"pictures/{file.name}\ta {file.stem} circle\n" for file in files]
    path.write_text("".join(lines), encoding="utf-8")


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


def evaluation(path: Path, made: Made) -> None:
    """An evaluation of a bridge."""
    args = ["--suites", "shapes", "--limit", "6", "--steps", "1", "--out", str(path)]
    cli.run(["evaluate", str(made("runs/t5")), *args])


PRESUPPOSED: dict[str, Maker] = {
    "this folder": bridge(),
    "runs/evaluation": evaluation,
    "runs/fusion": bridge(adapter="fusion"),
    r"runs(/[\w-]+)+": bridge(),
    r"pairs\.tsv": text(*(f"could you paint me {n} discs\ta red circle" for n in range(48))),
    r"[\w/-]+\.tsv": captions,
    r"[\w/-]+\.txt": text("a red circle", "two blue squares", "a green star above a house"),
    r"[\w/-]+\.safetensors": lora,
    r"[\w-]+/": pictures,
}
"""What pages name and nobody has, by a pattern of its name, of which the first counts: it is made
where a page's code names it, does not only write it, and nothing on the page has made it."""
WRITTEN = re.compile(r"--(out|cache|dry-run|export|pairs)[ =]\S+")
"""What is only written."""


def presupposed(code: str) -> Iterator[str]:
    """The names in code of what has to be there."""
    words = {word.rstrip(".") for word in re.findall(r"[\w./-]+", WRITTEN.sub("", code))}
    yield from (word for word in sorted(words) if form_of(word))
    yield from (name for name in PRESUPPOSED if " " in name and name in code)


def form_of(name: str) -> str | None:
    return next((form for form in PRESUPPOSED if re.fullmatch(form, name)), None)


NAMES: dict[str, Callable[[Made], Any]] = {
    "bridge": lambda made: Bridge.load(made("runs/t5"), device="cpu"),
}
"""Variables that Python blocks take as given."""


class Workspace:
    """The folder and the namespace of a page."""

    def __init__(self, page: str, folder: Path, made: Made, before: Sequence[Item]) -> None:
        """
        Args:
            before: code that is run before other code that stands below it.
        """
        self.page, self.folder, self.made, self.before = page, folder, made, before
        self.items = [item for item in everything() if item.code.page == page]
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        self.done: set[int] = set()
        self.registered: list[dict[str, Any]] = [{} for _ in REGISTRIES]
        folder.mkdir(parents=True)
        for name, content in files_of(page).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")

    def run(self, item: Item, *, whole: bool = False) -> None:
        """Run a piece of code after what comes before it on its page.

        Args:
            whole: as it is written, also where it is long; what comes before is shortened.
        """
        here = self.items.index(item)
        for at, earlier in enumerate(self.items[:here]):
            if earlier in self.before and at not in self.done:
                self.done.add(at)
                self._run(earlier)
        self.done.add(here)
        self._run(item, whole=whole)

    def _presuppose(self, item: Item) -> None:
        """Put what a piece of code needs into the folder, where the page has not made it."""
        named = item.text + f" {getattr(item.settings, 'data', '')}"
        for name in presupposed(named):
            if not (self.folder / name).exists():
                self.made.put(name, self.folder)
        told = item.text + str(vars(item.settings) if item.settings else "")
        for name in HUB:
            if (name in told or "--full" in told) and not (self.folder / name).exists():
                put_tiny(name, self.folder, self.made.root / "tiny")

    def _run(self, item: Item, *, whole: bool = False, more: Sequence[str] = ()) -> None:
        self._presuppose(item)
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
        if not whole:
            args += shorter(args, item.settings)
        cli.run([*args, *more])
        pairs = getattr(item.settings, "pairs", None)
        if pairs and form_of(str(pairs)):  # a tiny model's words are none
            (self.folder / pairs).unlink(missing_ok=True)
            self.made.put(str(pairs), self.folder)


def few_captions(patch: pytest.MonkeyPatch) -> None:
    """Give a warm start on the shapes world fewer captions and pictures."""
    captions, retold = ShapesWorld.captions, ShapesWorld.retold
    patch.setattr(ShapesWorld, "captions", lambda self, count: captions(self, min(count, 200)))
    patch.setattr(
        ShapesWorld, "retold", lambda self, count, **how: retold(self, min(count, 150), **how)
    )
    patch.setattr(predictions, "BANK", 4)
    patch.setattr(predictions, "BANK_STEPS", 1)


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
