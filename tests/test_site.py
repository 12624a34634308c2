"""The documentation site, without building it: its references, its navigation, its links."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.making import reference, site

from lavi_bridge.cli.completion import SETTINGS, flags

ROOT = Path(__file__).parents[1]
CLI = reference.PAGE.read_text(encoding="utf-8")
PYTHON = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")


# ---- the references


def test_the_reference_of_the_command_line_is_of_these_settings() -> None:
    assert reference.page() == CLI, "docs/reference/cli.md is not of these settings: make reference"


@pytest.mark.parametrize("command", SETTINGS)
def test_it_has_every_flag_of_a_command(command: str) -> None:
    section = CLI.split(f"\n## {command}\n")[1].split("\n## ")[0]
    shown = set(re.findall(r"^\| `--(?:\[no-\])?([\w-]+)` \|", section, re.MULTILINE))
    if "#how-pictures-are-drawn" in section:
        drawing = CLI.split("\n## How pictures are drawn\n")[1]
        shown |= set(re.findall(r"^\| `--([\w-]+)` \|", drawing, re.MULTILINE))
    taken = {flag[0].removeprefix("--") for flag in flags(SETTINGS[command]) if flag}
    assert shown == taken


def test_signs_of_a_docstring_mean_nothing_in_a_table() -> None:
    assert reference._escaped("a<TAB>b\n0.6*x | [y] `a|b_c`, docs/zoo.md") == (
        "a&lt;TAB>b 0.6\\*x \\| \\[y\\] `a\\|b_c`, [docs/zoo.md](../zoo.md)"
    )


@pytest.mark.parametrize("name", re.findall(r"^::: (\S+)$", PYTHON, re.MULTILINE))
def test_the_reference_of_python_names_what_is_there_and_told(name: str) -> None:
    parts = name.split(".")
    depth = next(n for n in range(len(parts), 0, -1) if _is_module(parts[:n]))
    found: Any = import_module(".".join(parts[:depth]))
    for part in parts[depth:]:
        found = getattr(found, part)
    assert found.__doc__


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath("src", *parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


# ---- pages


def test_every_page_is_in_the_navigation_once() -> None:
    named = sorted(page for pages in site.navigation().values() for page in pages.values())
    here = {path.relative_to(site.DOCS).as_posix() for path in site.DOCS.rglob("*.md")}
    elsewhere = {page for page in named if page.startswith(site.ELSEWHERE)}
    assert named == sorted(here | elsewhere)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small one: two pages, and files beside docs/ that they lead to."""
    files = {
        "docs/a.md": "# A\n\n[b](deep/b.md#x), [results](../RESULTS.md#y), [code](../src/x.py)",
        "docs/deep/b.md": "![c](../c.png) [folder](../../examples) [away](https://example.org/a.md)",
        "docs/c.png": "",
        "docs/making/site.py": "",
        "RESULTS.md": "# Results\n\n[a](docs/a.md)\n",
        "src/x.py": 'print("```")\n',
        "examples/one.yaml": "rank: 4\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_links_out_of_docs_lead_to_pages_of_the_site(repository: Path) -> None:
    pages = repository / "pages"
    site.write_pages(repository, pages, beside=())
    written = {p.relative_to(pages).as_posix(): p for p in pages.rglob("*") if p.is_file()}
    assert sorted(written) == [
        "a.md",
        "c.png",
        "deep/b.md",
        "repository/RESULTS.md",
        "repository/examples/index.md",
        "repository/examples/one.yaml.md",
        "repository/src/x.py.md",
    ]
    text = {name: p.read_text(encoding="utf-8") for name, p in written.items()}
    assert text["a.md"].endswith(
        "[b](deep/b.md#x), [results](repository/RESULTS.md#y), [code](repository/src/x.py.md)"
    )
    assert text["deep/b.md"] == (
        "![c](../c.png) [folder](../repository/examples/index.md) [away](https://example.org/a.md)"
    )
    assert text["repository/RESULTS.md"].endswith("[a](../a.md)\n")
    assert '\n~~~~~~python\nprint("```")\n~~~~~~\n' in text["repository/src/x.py.md"]
    assert "[`one.yaml`](one.yaml.md)" in text["repository/examples/index.md"]


def test_a_link_to_no_file_stops_the_build(repository: Path) -> None:
    (repository / "docs" / "a.md").write_text("[b](../gone.md)", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"docs/a\.md: no file '\.\./gone\.md'"):
        site.write_pages(repository, repository / "pages", beside=())


def test_the_index_has_the_first_sentence_of_a_page() -> None:
    page = "# Title\n\n```sh\nmake\n```\n\n| a |\n|---|\n\nA **b** [c](d.md) of\n`f`. Another."
    assert site.first_sentence(page) == "A b c of `f`."
    assert site.first_sentence("# Title\n\nIt goes on when it is stopped:\n\n- a") == (
        "It goes on when it is stopped"
    )


# ---- what it loads


def test_what_a_page_would_load_from_another_host_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="https://a.org">a</a> <img src="b.png"> <script src="//b.org/b.js"></script>'
        '<link rel="stylesheet" href="HTTPS://c.org/c.css"> <img srcset="https://d.org/d.png 2x">'
    )
    (tmp_path / "a.css").write_text('@import "x.css"; a { background: url(http://e.org/e.png) }')
    assert site.loaded_from_elsewhere(tmp_path) == [
        "a.css: http://e.org/e.png",
        "a.html: //b.org/b.js",
        "a.html: HTTPS://c.org/c.css",
        "a.html: https://d.org/d.png 2x",
    ]


def test_the_theme_has_no_reason_to_ask_another_host() -> None:
    config: dict[str, Any] = yaml.load(site.CONFIG.read_text(encoding="utf-8"), site._Loader)
    assert config["theme"]["font"] is False
    assert "repo_url" not in config  # its host would be asked for stars


def test_a_page_that_reads_otherwise_on_github_is_told_with_its_place() -> None:
    pytest.importorskip("pymdownx")  # comes with the extra `docs`
    from docs.making.alike import differences

    alike = "# A\n\ntext\n\n- one\n\n    ```sh\n    make\n    ```\n\n- two\n"
    assert list(differences(alike)) == []
    other = "# A\n\n- one\n\n## B\n\ntext\n- two\n"
    assert list(differences(other)) == [
        "after 'B': 1 ul on GitHub, 0 in the site; 1 li on GitHub, 0 in the site"
    ]
