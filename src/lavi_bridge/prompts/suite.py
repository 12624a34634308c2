"""What a suite of prompts is: public files at a commit, how they are read, a hash of the result."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.files.fetch import cache, fetched
from lavi_bridge.prompts.prompt import Prompt
from lavi_bridge.prompts.readers import Line, tsv


@dataclass(frozen=True)
class Origin:
    """A public repository at a commit."""

    repository: str
    commit: str
    license: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit[:7]} ({self.license})"


@dataclass(frozen=True)
class File:
    """One public file of a suite."""

    source: Origin
    path: str
    """In the repository; an empty one stands for an archive of all of it."""
    sha256: str | None
    """None where the commit alone pins it."""
    copy: str = ""
    """A further name by which it, or what is read of the archive, is looked for in a folder."""
    blob: str = ""
    """Git's id of its content, where more than its prompts counts: also asked of copies."""

    @property
    def name(self) -> str:
        return Path(self.path).name or f"{self.source.commit}.tar.gz"

    @property
    def url(self) -> str:
        repository, commit = self.source.repository, self.source.commit
        if not self.path:
            return f"https://github.com/{repository}/archive/{self.name}"
        return f"https://raw.githubusercontent.com/{repository}/{commit}/{self.path}"

    def find(self, folder: Path | None) -> Path:
        """Its place in the folder, or else in the cache, fetched if need be.

        Raises:
            BridgeError: it is nowhere and cannot be fetched; the line says where to put it.
        """
        if folder is not None:
            for name in (self.name, self.path, self.copy):
                if name and (folder / name).exists():
                    return self._checked(folder / name)
        repository, commit = self.source.repository, self.source.commit[:7]
        place = f"prompts/{repository}@{commit}/{self.path or self.name}"
        if "-NC" in self.source.license and not (cache() / place).exists():
            print(
                f"{self.name} of {self.source}: not for commercial use, and not to be passed on "
                "with the report",
                file=sys.stderr,
            )
        try:
            return self._checked(fetched(place, url=self.url, sha256=self.sha256))
        except BridgeError as error:
            raise BridgeError(f"{error}, or into a folder given with --prompts") from error

    def _checked(self, path: Path) -> Path:
        """The path of a copy, if it is one.

        Raises:
            BridgeError: it has another content.
        """
        if self.blob and (found := blob(path)) != self.blob:
            raise BridgeError(
                f"{path} is not the file of {self.source} (git's id of it is {found[:12]}, "
                f"expected {self.blob[:12]}); take {self.url}"
            )
        return path


@dataclass(frozen=True)
class Part:
    """What is read together of a suite: all of it, or a category with a file of its own."""

    count: int
    """Prompts."""
    hash: str
    """`prompt_hash` of these; empty where no file is read."""
    files: tuple[File, ...]
    read: Callable[..., Iterable[Line]]
    """Called with the files' places."""
    categories: tuple[str, ...] = ()
    table: tuple[str, tuple[str, ...]] | None = None
    """Name and columns of a TSV of the same prompts, preferred where a folder has it."""

    def rows(self, folder: Path | None) -> Iterable[Line]:
        """Read it, from `folder` if it is there."""
        if folder is not None and self.table and (folder / self.table[0]).is_file():
            return tsv(folder / self.table[0], self.table[1])
        return self.read(*(file.find(folder) for file in self.files))


@dataclass(frozen=True)
class Suite:
    """A list of prompts that has a name."""

    name: str
    title: str
    parts: tuple[Part, ...]
    images: int = 1
    """Images per prompt that its authors ask for."""
    protocol: str = ""
    """What else is to be known of it, in a sentence."""

    @property
    def count(self) -> int:
        """Prompts in all."""
        return sum(part.count for part in self.parts)

    @property
    def categories(self) -> tuple[str, ...]:
        """The values that `Prompt.category` takes, in order; none where it is empty."""
        return tuple(category for part in self.parts for category in part.categories)

    @property
    def sources(self) -> list[Origin]:
        """The repositories that its files come from."""
        return list(dict.fromkeys(file.source for part in self.parts for file in part.files))

    def load(self, folder: Path | None = None, *, category: str = "") -> list[Prompt]:
        """Read its prompts, or those of one category.

        Raises:
            BridgeError: no such category, a file that is missing, or one with other prompts than
                the suite's.
        """
        known = {_slug(name): name for name in self.categories}
        if category and _slug(category) not in known:
            hint = nearest(category, known) if known else ""
            raise BridgeError(
                f"suite '{self.name}' has no category '{category}'; "
                f"known: {', '.join(known) or 'none'}{hint}"
            )
        wanted = known[_slug(category)] if category else ""
        prompts = []
        for part in self.parts:
            if not wanted or wanted in part.categories:
                prompts += self._checked(part, as_prompts(part.rows(folder), self.name))
        return [p for p in prompts if not wanted or p.category == wanted]

    def _checked(self, part: Part, prompts: list[Prompt]) -> list[Prompt]:
        if part.hash and (found := prompt_hash(prompts)) != part.hash:
            names = ", ".join(file.name for file in part.files)
            raise BridgeError(
                f"{names}: not the list of suite '{self.name}' ({len(prompts)} prompts with hash "
                f"{found}, expected {part.count} with {part.hash}); take {part.files[0].url}, or "
                "name your own file in place of the suite"
            )
        return prompts


def blob(path: Path) -> str:
    """Git's id of a file's content, 40 hex digits."""
    content = path.read_bytes()
    return sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def prompt_hash(prompts: Sequence[Prompt]) -> str:
    """16 hex digits over ids, texts and categories: equal where the same list was asked."""
    rows = [[prompt.id, prompt.text, prompt.category] for prompt in prompts]
    return sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower())[:40].strip("-") or "prompt"


def as_prompts(rows: Iterable[Line], name: str) -> list[Prompt]:
    """Rows as prompts; those without an id get one of their category, or of `name`."""
    prompts: list[Prompt] = []
    numbers: Counter[str] = Counter()
    taken: set[str] = set()
    for row in rows:
        text, stem = row.text.strip(), _slug(row.category or name)
        key = row.id or f"{stem}-{numbers[stem]:04d}"
        numbers[stem] += 1
        if not text:
            raise BridgeError(f"{row.where}: the prompt is empty")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", key):
            raise BridgeError(
                f"{row.where}: id {key!r} cannot name a file; use letters, digits, - and _"
            )
        if key.casefold() in taken:  # some file systems do not tell a from A
            raise BridgeError(f"{row.where}: id '{key}' is taken by an earlier prompt")
        taken.add(key.casefold())
        prompts.append(Prompt(key, text, row.category, row.short, row.facts))
    return prompts
