"""The README and its pages tell the truth: tables, trees, links and commands."""

import re
from pathlib import Path

import pytest

from lavi_bridge.cli import main as cli
from lavi_bridge.cli.listing import listing

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["languages", "visions"])
def test_the_families_are_those_of_the_registries(what: str) -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    shown = page.split(f"<!-- lavi-bridge list {what} -->")[1].split("<!-- end -->")[0]
    assert shown.strip().removeprefix("```").removesuffix("```").strip("\n") == listing(what)


PACKAGE = ROOT / "src" / "lavi_bridge"


def test_the_tree_names_every_folder() -> None:
    tree = README.split("## The tree")[1].split("```")[1].split("tests/")[0]
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert set(re.findall(r"(\w+)/(?=\s)", tree.replace("src/lavi_bridge/", ""))) == folders


def test_the_page_on_architecture_names_what_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("```")[1]
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    assert set(re.findall(r"^  (\w+)/", tree, re.MULTILINE)) == folders
    for path in re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", page):
        assert any((root / path).exists() for root in (PACKAGE, ROOT)), path


def test_the_first_page_is_short() -> None:
    assert len(README.splitlines()) <= 160


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in DOCS)])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#\s]+)\)", path.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (path.parent / link).exists(), link


def test_the_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in re.findall(r"lavi-bridge ([a-z]+) ", README):
        assert command in cli.COMMANDS, command


def test_the_tests_that_the_table_of_real_inputs_names_exist() -> None:
    text = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "`test_" in line]
    assert len(rows) == 24 + 8
    for row in rows:
        file = ""
        for name in re.findall(r"`((?:test_\w+\.py::)?test_\w+)`", row.split("|")[-2]):
            file, _, test = name.rpartition("::") if "::" in name else (file, "", name)
            (path,) = (ROOT / "tests").rglob(file)
            assert f"def {test}(" in path.read_text(encoding="utf-8"), name
