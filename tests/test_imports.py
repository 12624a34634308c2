"""The surface: what importing costs, which way imports run, and what the package exports."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lavi_bridge

PACKAGE = Path(lavi_bridge.__file__).parent

ROOMS = [
    "errors",
    "version",
    "registry",
    "recipes",
    "shapes/",
    "files/",
    "show/",
    "config",
    "running/",
    "text",
    "languages/",
    "adapters/",
    "visions/",
    "bridge/",
    "data/",
    "prompts/",
    "metrics/",
    "evaluate/",
    "export/",
    "publish/",
    "plan/",
    "train/",
    "reproduce/",
    "zoo/",
    "page/",
    "cli/",
]
"""Folders and files of the root, from the ground up: each may import from those before it."""
ALONE = {"testing/"}
"""What imports nothing of the package, and is imported by nothing of it."""
MOST_LINES = 400
MOST_ROOT_FILES = 10


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name; a folder's name is that of its `__init__`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ["lavi_bridge", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Files of this package that a file imports anywhere: in functions and for types, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys()


def room(module: str) -> str:
    """`lavi_bridge.languages.t5` -> `languages/`, `lavi_bridge.text` -> `text`."""
    name = module.split(".")[1]
    return f"{name}/" if (PACKAGE / name).is_dir() else name


def test_every_room_has_its_place() -> None:
    inside = {room(name) for name in MODULES if name != "lavi_bridge"}
    assert inside == {*ROOMS, *ALONE, "__main__"}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"lavi_bridge", "lavi_bridge.__main__"}))
def test_imports_run_one_way(module: str) -> None:
    own = room(module)
    for other in map(room, imports(MODULES[module]) - {"lavi_bridge"}):
        if other != own:
            assert own not in ALONE
            assert ROOMS.index(other) < ROOMS.index(own), f"{module} imports from {other}"


def test_no_file_knows_the_front_door() -> None:
    """It imports nearly all of the package."""
    inside = MODULES.items() - {("lavi_bridge.__main__", MODULES["lavi_bridge.__main__"])}
    assert not [name for name, path in inside if "lavi_bridge" in imports(path)]


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises, with the circle


def test_files_are_short_and_few_are_in_the_root() -> None:
    lengths = {n: len(p.read_text(encoding="utf-8").splitlines()) for n, p in MODULES.items()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_ROOT_FILES


def test_tests_lie_as_the_package_does() -> None:
    tests = PACKAGE.parents[1] / "tests"
    folders = {p.name for p in tests.iterdir() if list(p.glob("test_*.py"))}
    assert folders <= {p.name for p in PACKAGE.iterdir() if p.is_dir()} | {"docs"}


def test_nothing_in_the_package_imports_torchvision() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "torchvision" not in path.read_text(encoding="utf-8").replace("torchvision's", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["train", "--help"],
        ["generate", "--help"],
        ["plan", "--help"],
        ["list", "--help"],
        ["expand", "--help"],
        ["expand", "--show-instruction"],
        ["zoo", "--help"],
        ["zoo", "build", "--help"],
        ["evaluate", "--help"],
        ["judge", "--help"],
        ["reproduce", "--help"],
        ["interpolate", "--help"],
        ["push", "--help"],
        ["doctor", "--help"],
        ["completion", "bash"],
    ],
)
def test_help_imports_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys, lavi_bridge.cli.main as cli\n"
        f"sys.argv[1:] = {arguments}\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print('heavy:', {'torch', 'transformers', 'diffusers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: set()"
    assert len(done.stdout.splitlines()) > 5


def test_all_metrics_are_found_without_being_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import lavi_bridge.metrics as known

    monkeypatch.setattr(lavi_bridge, "metrics", known)  # which an import sets, taken back after
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{known.__name__}.")]:
        monkeypatch.delitem(sys.modules, name)
    fresh = importlib.import_module(known.__name__)
    assert fresh.METRICS is not known.METRICS
    assert sorted(fresh.METRICS) == [
        "aesthetic-v1",
        "aesthetic-v2",
        "blip-vqa",
        "clip-nonspatial",
        "clip-score",
        "cmmd",
        "dpg-judge",
        "fd-dinov2",
        "fid",
        "hpsv3",
        "kid",
        "mind",
        "numeracy-owlv2",
        "pickscore",
        "shapes",
        "shapes-facts",
        "shapes-fd",
        "soft-tifa",
        "soft-tifa-gm",
        "spatial-3d",
        "spatial-owlv2",
        "vqascore",
    ]


def test_the_public_names_are_these() -> None:
    assert lavi_bridge.__all__ == [
        "RECIPES",
        "Bridge",
        "BridgeError",
        "Recipe",
        "Text",
        "__version__",
        "warm_start",
    ]
    for name in lavi_bridge.__all__:
        assert getattr(lavi_bridge, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Brigde'"):
        _ = lavi_bridge.Brigde
