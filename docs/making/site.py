"""Builds the documentation site in build/site: `make docs`.

Pages are plain Markdown that GitHub shows as it is. There, their links may lead to any file of the
repository; in the site, each such file is a page, too, so that nothing leads away from it and all
can be read without a network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCS, PAGES, SITE = ROOT / "docs", ROOT / "build" / "docs", ROOT / "build" / "site"
CONFIG = ROOT / "mkdocs.yml"
ELSEWHERE = "repository"
"""Folder of the site for files that are not in docs/."""
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
PICTURES = (".png", ".svg", ".jpg")
ELSEWHERE_HOST = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
LOADED = "src", "srcset", "data", "poster"
"""Attributes whose addresses a browser loads by itself; of `link`, `href`, too."""


# ---- pages


def write_pages(root: Path, pages: Path, beside: Iterable[str]) -> list[Path]:
    """Copy docs/ into `pages`, and every file outside of it that a page links to.

    Args:
        beside: further files, from the root of the repository.

    Returns:
        The files that pages were made of.

    Raises:
        SystemExit: a link leads to no file.
    """
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(root / "docs", pages, ignore=shutil.ignore_patterns("making", "__pycache__"))
    waiting = [path for path in sorted((root / "docs").rglob("*.md")) if "making" not in path.parts]
    waiting += [root / name for name in beside]
    done: list[Path] = []
    while waiting:
        path = waiting.pop(0)
        if path in done:
            continue
        done.append(path)
        text, linked = _page(path, root)
        target = pages / place(path, root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        for each in linked:
            if each.suffix in PICTURES:
                if not each.is_relative_to(root / "docs"):
                    copy = pages / place(each, root)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(each, copy)
            elif each.is_dir() or not each.is_relative_to(root / "docs"):
                waiting.append(each)
    return done


def place(path: Path, root: Path) -> Path:
    """Where a file of the repository stands among the pages."""
    if path.is_relative_to(root / "docs"):
        inside = path.relative_to(root / "docs")
        return inside / "index.md" if path.is_dir() else inside
    inside = Path(ELSEWHERE) / path.relative_to(root)
    if path.is_dir():
        return inside / "index.md"
    if path.suffix == ".md" or path.suffix in PICTURES:
        return inside
    return inside.with_name(f"{inside.name}.md")


def _page(path: Path, root: Path) -> tuple[str, list[Path]]:
    """A file as a page of the site, and the files that it links to."""
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.is_file())
        listed = "".join(f"- [`{each.name}`]({each.name})\n" for each in files)
        return _relinked(f"# `{path.relative_to(root)}`\n\n{listed}", path / "index.md", root)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return _relinked(text, path, root)
    fence = "~~~~~~" if "```" in text else "```"
    kind = LANGUAGES.get(path.suffix, "text")
    head = "---\nsearch:\n  exclude: true\n---\n\n"  # code would drown what is told about it
    return f"{head}# `{path.relative_to(root)}`\n\n{fence}{kind}\n{text.rstrip()}\n{fence}\n", []


def _relinked(text: str, path: Path, root: Path) -> tuple[str, list[Path]]:
    """A page's text with links that hold in the site, and the files they lead to."""
    linked: list[Path] = []

    def lead(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(path.parent / link[0]))
        if not target.exists() or not target.is_relative_to(root):
            sys.exit(f"error: {path.relative_to(root)}: no file '{link[0]}'")
        linked.append(target)
        here = place(path, root).parent
        return Path(os.path.relpath(place(target, root), here)).as_posix()

    return LINK.sub(lead, text), linked


# ---- what the site is made of


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without making the Python objects that it names."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigation() -> dict[str, dict[str, str]]:
    """The pages of the site by title, under the titles of their sections."""
    config: dict[str, Any] = yaml.load(CONFIG.read_text(encoding="utf-8"), _Loader)
    return {
        title: {name: page for each in pages for name, page in each.items()}
        for section in config["nav"]
        for title, pages in section.items()
    }


def in_nav_beside_docs() -> Iterator[str]:
    """Files outside of docs/ that the navigation names, from the root of the repository."""
    for pages in navigation().values():
        for page in pages.values():
            if page.startswith(f"{ELSEWHERE}/"):
                yield page.removeprefix(f"{ELSEWHERE}/")


def index(pages: Path) -> str:
    """llms.txt: every page of the navigation with the first sentence of its text."""
    config: dict[str, Any] = yaml.load(CONFIG.read_text(encoding="utf-8"), _Loader)
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    for title, section in navigation().items():
        lines += ["", f"## {title}", ""]
        for name, page in section.items():
            about = first_sentence((pages / page).read_text(encoding="utf-8"))
            lines.append(f"- [{name}]({Path(page).with_suffix('.html')}): {about}")
    return "\n".join(lines) + "\n"


def first_sentence(page: str) -> str:
    """The first sentence of a page's text, without its marks."""
    for block in re.split(r"\n{2,}", FENCE.sub("", page)):
        text = " ".join(block.split())
        if text and not re.match(r"[#|!<:-]", text):
            text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("**", "")
            return re.split(r"(?<=[.!?])\s", text)[0].removesuffix(":")
    return ""


# ---- what it loads


class _Loads(HTMLParser):
    """Collects the addresses that a browser loads by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name in LOADED or (tag, name) == ("link", "href")):
                self.found.append(value)


def loaded_from_elsewhere(site: Path) -> list[str]:
    """What the site's pages and styles would load from other hosts, each with its file."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            parser = _Loads()
            parser.feed(path.read_text(encoding="utf-8"))
            addresses = parser.found
        elif path.suffix == ".css":
            text = path.read_text(encoding="utf-8")
            addresses = re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", text)
        else:
            continue
        found += [
            f"{path.relative_to(site)}: {each}" for each in addresses if ELSEWHERE_HOST.match(each)
        ]
    return found


def main() -> None:
    """Write the pages, build them, and refuse whatever was warned of."""
    from docs.making.alike import differences

    start = time.perf_counter()
    odd = [
        f"{path.relative_to(ROOT)}, {each}"
        for path in write_pages(ROOT, PAGES, in_nav_beside_docs())
        if path.suffix == ".md"
        for each in differences(path.read_text(encoding="utf-8"))
    ]
    if odd:
        sys.exit("\n".join(["error: pages read otherwise on GitHub:", *odd]))
    shutil.rmtree(SITE, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "-f", str(CONFIG)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    told = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)  # letters are coloured one by one
    if "Aborted because --strict" in told:
        told = told.partition("Traceback")[0]
    told = told.replace("No issues found", "").strip()  # what is left may be of docstrings
    if done.returncode or told:
        sys.exit(f"{told}\nerror: the site has warnings, see above")
    if found := loaded_from_elsewhere(SITE):
        sys.exit("\n".join(["error: pages would load from other hosts:", *found]))
    (SITE / "llms.txt").write_text(index(PAGES), encoding="utf-8")
    count = len(list(SITE.rglob("*.html")))
    print(f"'{SITE.relative_to(ROOT)}': {count} pages in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
