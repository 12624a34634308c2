"""Whether a page is the same on GitHub and in the site, whose readers of Markdown differ.

The site's wants a blank line before a list, four spaces before a block that belongs to an item, and
`<details markdown>`. Where a page breaks such a rule, lists, tables or code become plain text in
one of the two, and no other check sees it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator

import markdown
from markdown_it import MarkdownIt

PARTS: tuple[str, ...] = ("ul", "ol", "li", "table", "tr", "td", "th", "h1", "h2", "h3", "h4")
PARTS += ("pre", "code", "a", "img", "em", "strong", "blockquote")
EXTENSIONS = ["attr_list", "md_in_html", "pymdownx.superfences", "sane_lists", "tables"]
"""Of mkdocs.yml, those that find such parts."""
GITHUB = MarkdownIt("commonmark").enable("table")


def differences(page: str) -> Iterator[str]:
    """The parts whose number differs, as `after 'To add': 5 li on GitHub, 2 in the site`."""
    lines = page.splitlines(keepends=True)
    heads = [t.map[0] for t in GITHUB.parse(page) if t.type == "heading_open" and t.map]
    for start, stop in itertools.pairwise([0, *heads, len(lines)]):
        section = "".join(lines[start:stop])
        here = _counted(markdown.markdown(section, extensions=EXTENSIONS))
        there = _counted(GITHUB.render(section))
        odd = [
            f"{there[part]} {part} on GitHub, {here[part]} in the site"
            for part in PARTS
            if here[part] != there[part]
        ]
        if odd:
            title = lines[start].strip("# \n")
            yield f"after '{title}': {'; '.join(odd)}"


def _counted(html: str) -> Counter[str]:
    """How often each of the parts begins; code in blocks counts once, as `pre`."""
    html = re.sub(r"<pre.*?</pre>", "<pre>", html, flags=re.DOTALL)
    html = re.sub(r"<!--.*?-->", "", html, flags=re.DOTALL)
    return Counter(re.findall(rf"<({'|'.join(PARTS)})\b", html))
