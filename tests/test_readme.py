"""The README tells the truth: its table, its tree and its commands."""

import re
from pathlib import Path

from lavi_bridge import cli
from lavi_bridge.plan import listing

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_one_the_registries_give() -> None:
    shown = README.split("<!-- lavi-bridge list matrix -->")[1].split("<!-- end -->")[0].strip()
    assert shown == listing("matrix")


def test_the_tree_names_every_module() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"^  (\w+(?:\.py|/))", tree, re.MULTILINE))
    package = ROOT / "src" / "lavi_bridge"
    modules = {p.name for p in package.glob("*.py") if not p.name.startswith("__")}
    folders = {f"{p.name}/" for p in package.iterdir() if (p / "__init__.py").is_file()}
    assert named == modules | folders


def test_the_languages_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "paper-in-miniature.md").read_text()
    shown = README.split("<!-- languages of docs/paper-in-miniature.md -->")[1].split("<!--")[0]
    assert shown.strip()
    assert shown.strip() in page


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
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name
