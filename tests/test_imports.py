"""The surface: what importing costs, which way imports run, and what the package exports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lavi_bridge

PACKAGE = Path(lavi_bridge.__file__).parent

# Each layer may import from itself where marked, and from the layers before it.
LAYERS: list[tuple[str, ...]] = [
    ("errors",),
    (
        "alignment",
        "blocks",
        "config",
        "registry",
        "files",
        "fetch",
        "locate",
        "lock",
        "muon",
        "recipes",
        "text",
        "pictures",
        "curves",
        "device",
        "openmp",
        "output",
        "progress",
        "prompts",
        "resume",
        "seeds",
        "weights",
    ),
    (
        "languages",
        "visions",
        "adapters",
        "data",
        "lora",
        "metrics",
        "zoo.scenes",
        "zoo.grammar",
        "zoo.world",
        "zoo.scorer",
    ),
    ("bridge", "legacy", "storage", "testing", "matching", "warm_start"),
    ("train", "plan", "generation", "evaluate"),
    ("zoo.demo", "zoo.pretrain", "reproduce"),
    ("cli", "__main__"),
]
ALONE = 2  # parts of this layer are siblings that never import each other
WORLD = ("zoo.scenes", "zoo.grammar", "zoo.world", "zoo.scorer")
"""One part in four files: scenes <- grammar <- world, and the scorer reads the first two."""


def part(module: str) -> str:
    """`lavi_bridge.languages.t5` -> `languages`, `lavi_bridge.zoo.demo` -> `zoo.demo`."""
    names = module.split(".")[1:]
    return ".".join(names[:2]) if names[:1] == ["zoo"] else names[0] if names else ""


def level(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body:  # the top level only: what a function imports, it imports when called
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            files = {n for n in names if (PACKAGE.parent / (n.replace(".", "/") + ".py")).exists()}
            found |= files or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("lavi_bridge.")}


def files() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    module = "lavi_bridge." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    own = part(module)
    for other in map(part, imports(path)):
        if other == own:
            continue
        assert level(other) <= level(own), f"{own} imports {other}"
        if own in WORLD and other in WORLD:
            assert WORLD.index(other) < min(WORLD.index(own), 2), f"{own} imports {other}"
        elif level(own) == ALONE:
            assert level(other) < ALONE, f"{own} imports its sibling {other}"


def test_nothing_in_the_package_imports_torchvision() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "torchvision" not in path.read_text(encoding="utf-8").replace("torchvision's", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["train", "--help"], ["generate", "--help"],
                                       ["plan", "--help"], ["list", "--help"],
                                       ["expand", "--help"], ["expand", "--show-instruction"],
                                       ["zoo", "--help"], ["zoo", "build", "--help"],
                                       ["evaluate", "--help"],
                                       ["reproduce", "--help"]])  # fmt: skip
def test_help_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, lavi_bridge.cli as cli\n"
        f"sys.argv[1:] = {arguments}\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print('heavy:', {'torch', 'transformers', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: set()"
    assert len(done.stdout.splitlines()) > 5


def test_the_public_names_are_these() -> None:
    assert lavi_bridge.__all__ == [
        "RECIPES", "Bridge", "BridgeError", "Recipe", "Text", "__version__",
    ]  # fmt: skip
    for name in lavi_bridge.__all__:
        assert getattr(lavi_bridge, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Brigde'"):
        _ = lavi_bridge.Brigde
