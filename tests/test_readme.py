"""The README and its pages tell the truth: tables, trees and links. For code see tests/docs."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavi_bridge.cli import main as cli
from lavi_bridge.cli.listing import listing
from lavi_bridge.version import __version__

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/RESULTS.md", "comfyui/README.md"),
    *(p.relative_to(ROOT).as_posix() for p in DOCS),
]


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


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        place, _, anchor = link.partition("#")
        if not link.startswith("https://"):
            assert (path.parent / place).exists(), link
            assert not anchor or anchor in anchors(path.parent / place if place else path), link


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", shown.lower().strip()).replace(" ", "-")
        twice = itertools.takewhile(found.__contains__, (f"{name}-{i}" for i in itertools.count(1)))
        found.add(name if name not in found else f"{name}-{len(list(twice)) + 1}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_targets_of_make_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", (ROOT / page).read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


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


# ---- what a newcomer looks for beside the README


def test_the_markers_are_explained_to_who_contributes() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    markers = PROJECT["tool"]["pytest"]["ini_options"]["markers"]
    assert table == {marker.partition(":")[0] for marker in markers}


def test_the_page_on_installation_names_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))
    assert table == PROJECT["project"]["optional-dependencies"].keys() - {"dev", "docs"}


def test_the_changelog_tells_of_this_version() -> None:
    page = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in page
    assert f"What {__version__} will be" in page or f"## [{__version__}]" in page


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {
        "cff-version",
        "message",
        "title",
        "authors",
    } <= cff.keys()  # required by the schema
    assert (cff["version"], cff["license"]) == (__version__, PROJECT["project"]["license"])
    paper, names = cff["preferred-citation"], ["Zhao", "Hao", "Zi", "Xu", "Wong"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert [author["family-names"] for author in paper["authors"]] == names
    assert paper["year"] == 2024
    assert "https://arxiv.org/abs/2403.07860" in README
    assert paper["url"] == "https://arxiv.org/abs/2403.07860"


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_the_issue_forms_are_what_the_site_reads(path: Path) -> None:
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": False}
        return
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "checkboxes")
        assert field["attributes"]["label"]
        assert field.keys() <= {"type", "id", "attributes", "validations"}
    text = path.read_text(encoding="utf-8")
    for command in re.findall(r"lavi-bridge ([a-z]+)", text):
        assert command in cli.COMMANDS, command


def test_a_bug_comes_with_what_the_doctor_says() -> None:
    assert [path.stem for path in FORMS] == ["bug", "config", "model-family", "question"]
    assert "`lavi-bridge doctor --json`" in FORMS[0].read_text(encoding="utf-8")
