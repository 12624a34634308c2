"""Prompt suites: the public lists that image models are judged on, and lists of one's own.

A suite is data: which public files at which commit, how they are read, how many prompts they give
and the hash of these, and what its authors ask for. The lists themselves are not in the package:
they are read from a folder, or fetched once into the cache.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavi_bridge.errors import BridgeError, nearest
from lavi_bridge.fetch import fetched
from lavi_bridge.files import at_home
from lavi_bridge.prompts import Prompt

if TYPE_CHECKING:
    from lavi_bridge.metrics.compbench import Mode
    from lavi_bridge.metrics.three_in_one import Kind

SHAPES_PER_CATEGORY = 64
SHAPES_SEED = 777


@dataclass(frozen=True)
class Source:
    """A public repository at a commit."""

    repository: str
    commit: str
    license: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.commit[:7]} ({self.license})"


@dataclass(frozen=True)
class File:
    """One public file of a suite."""

    source: Source
    path: str
    """In the repository; an empty one stands for an archive of all of it."""
    sha256: str | None
    """None where the commit alone pins it."""
    copy: str = ""
    """A further name by which it, or what is read of the archive, is looked for in a folder."""

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
                    return folder / name
        repository, commit = self.source.repository, self.source.commit[:7]
        place = f"prompts/{repository}@{commit}/{self.path or self.name}"
        try:
            return fetched(place, url=self.url, sha256=self.sha256)
        except BridgeError as error:
            raise BridgeError(f"{error}, or into a folder given with --prompts") from error


@dataclass(frozen=True)
class Row:
    """What a file says of one prompt, and where."""

    where: str
    """`file:line`, for messages."""
    text: str
    category: str = ""
    id: str = ""
    short: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What is read together of a suite: all of it, or a category with a file of its own."""

    count: int
    """Prompts."""
    hash: str
    """`prompt_hash` of these; empty where no file is read."""
    files: tuple[File, ...]
    read: Callable[..., Iterable[Row]]
    """Called with the files' places."""
    categories: tuple[str, ...] = ()
    table: tuple[str, tuple[str, ...]] | None = None
    """Name and columns of a TSV of the same prompts, preferred where a folder has it."""

    def rows(self, folder: Path | None) -> Iterable[Row]:
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
    def sources(self) -> list[Source]:
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
                prompts += self._checked(part, _prompts(part.rows(folder), self.name))
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


def load_suite(spec: str, *, folder: Path | None = None, limit: int | None = None) -> list[Prompt]:
    """The prompts of a suite, of one of its categories, or of a file.

    Args:
        spec: a name of SUITES, `NAME:CATEGORY`, or the path of a .txt, .tsv or .jsonl file.
        folder: where copies of the public files are looked for, before the cache.
        limit: take so many, evenly over the categories and each category's first.

    Raises:
        BridgeError: an unknown suite or category; a file that cannot be had, is empty, or is
            malformed (file and line are named).
    """
    if folder is not None and not folder.is_dir():
        raise BridgeError(f"no folder '{folder}' to look for prompts in")
    if limit is not None and limit < 1:
        raise BridgeError(f"the limit must be at least 1 prompt, not {limit}")
    if reader := READERS.get(Path(spec).suffix.lower()):
        prompts = _prompts(reader(at_home(spec)), Path(spec).stem)
        if not prompts:
            raise BridgeError(f"'{spec}' holds no prompts")
    else:
        name, _, category = spec.partition(":")
        if name not in SUITES:
            raise BridgeError(
                f"unknown suite '{name}'; known: {', '.join(SUITES)}, "
                f"or a {', '.join(READERS)} file{nearest(name, SUITES)}"
            )
        prompts = SUITES[name].load(folder, category=category)
    return prompts if limit is None else _evenly(prompts, limit)


def prompt_hash(prompts: Sequence[Prompt]) -> str:
    """16 hex digits over ids, texts and categories: equal where the same list was asked."""
    rows = [[prompt.id, prompt.text, prompt.category] for prompt in prompts]
    return sha256(json.dumps(rows).encode()).hexdigest()[:16]


def complex_kinds(texts: Iterable[str], folder: Path | None = None, *,
                  mode: Mode = "faithful") -> dict[str, Kind]:  # fmt: skip
    """Which relations complex prompts of T2I-CompBench have, by its three lists.

    Raises:
        BridgeError: a list cannot be had, or in mode `fixed` none names a prompt.
    """
    from lavi_bridge.metrics.three_in_one import kind_of  # metrics bring torch

    lists = {
        kind: {
            row.text for row in txt(_compbench_file(f"complex_val_{kind}.txt", pinned).find(folder))
        }
        for kind, pinned in _COMPLEX.items()
    }
    return {text: kind_of(text, lists, mode=mode) for text in texts}


def duplicates(prompts: Sequence[Prompt]) -> int:
    """How many prompts repeat an earlier one; they are kept, for the public lists have some."""
    return len(prompts) - len({prompt.text for prompt in prompts})


def _evenly(prompts: list[Prompt], limit: int) -> list[Prompt]:
    """The first prompts of every category in turn, in their own order."""
    met: Counter[str] = Counter()
    turns = []
    for index, prompt in enumerate(prompts):
        turns.append((met[prompt.category], index))
        met[prompt.category] += 1
    return [prompts[index] for index in sorted(index for _, index in sorted(turns)[:limit])]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower())[:40].strip("-") or "prompt"


def _prompts(rows: Iterable[Row], name: str) -> list[Prompt]:
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


# Readers ------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Where each line of a UTF-8 file is, and the line; blank ones are skipped."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BridgeError(f"cannot read prompts '{path}': {error.strerror}") from error
    for number, raw in enumerate(content.split(b"\n"), 1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise BridgeError(f"{where}: not UTF-8 text; save the file as UTF-8") from error
        if line.strip():
            yield where, line


def txt(path: Path, category: str = "") -> Iterator[Row]:
    """One prompt a line."""
    for where, line in _lines(path):
        yield Row(where, line, category)


def tsv(path: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Tab-separated, without quoting: the column `prompt` of a header, or else the last one.

    The header may also name `id`, `category` and `short`; its other columns become facts.

    Args:
        columns: their names where the file has no header.
    """
    names = list(columns)
    for where, line in _lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if not names:
            lower = [cell.lower() for cell in cells]
            if "prompt" in lower:
                special = ("prompt", "id", "category", "short")
                names = [a if a in special else b for a, b in zip(lower, cells, strict=True)]
                continue
            names = [""] * (len(cells) - 1) + ["prompt"]
        if len(cells) != len(names):
            raise BridgeError(f"{where}: {len(cells)} columns, but the first line has {len(names)}")
        known = {name: cell for name, cell in zip(names, cells, strict=True) if name and cell}
        yield Row(
            where,
            known.pop("prompt", ""),
            known.pop("category", ""),
            known.pop("id", ""),
            known.pop("short", ""),
            dict(known),
        )


def jsonl(path: Path, category: str = "category") -> Iterator[Row]:
    """A JSON object a line: `prompt` (or `long`, as `lavi-bridge expand` writes); others are facts.

    Args:
        category: the key of the category; if it is another than `category`, it stays a fact, too.
    """
    for where, line in _lines(path):
        try:
            entry = json.loads(line)
            json.dumps(entry, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise BridgeError(f"{where}: not valid JSON: {error}") from error
        if not isinstance(entry, dict):
            raise BridgeError(f'{where}: expected an object, as {{"prompt": "a red circle"}}')
        key = "prompt" if "prompt" in entry else "long"
        words = [entry.get(name) for name in (key, category, "id", "short")]
        for name, value in zip((key, category, "id", "short"), words, strict=True):
            if isinstance(value, bool) or not isinstance(value, str | int | None):
                raise BridgeError(f"{where}: '{name}' must be text")
        if key not in entry:
            raise BridgeError(f"{where}: no 'prompt'; it has {', '.join(entry) or 'nothing'}")
        facts = {k: v for k, v in entry.items() if k not in (key, "category", "id", "short")}
        text, kind, own, short = ("" if value is None else str(value) for value in words)
        yield Row(where, text, kind, own, short, facts)


def _texts(place: Path) -> Iterator[Row]:
    """DPG-Bench: `dpg_bench/prompts`, a .txt file a prompt, as a folder or in a .tar.gz."""
    found: dict[str, tuple[str, bytes]] = {}
    if place.is_dir():
        found = {p.stem: (str(p), p.read_bytes()) for p in place.glob("*.txt")}
    else:
        try:
            with tarfile.open(place) as archive:
                for member in archive:
                    path = Path(member.name)
                    if path.match("dpg_bench/prompts/*.txt") and (
                        file := archive.extractfile(member)
                    ):
                        found[path.stem] = (f"{place}:{member.name}", file.read())
        except (OSError, tarfile.TarError, EOFError) as error:
            raise BridgeError(
                f"cannot read '{place}' ({error}); delete it and try again"
            ) from error
    for key, (where, content) in sorted(found.items()):
        yield Row(where, " ".join(content.decode("utf-8", "replace").split()), id=key)


def _pairs(short: Path, long: Path, drawbench: Path, upsampled: Path) -> Iterator[Row]:
    """Short prompts with their long ones: of DrawBench as in DALL·E 3's evaluation, of VBench.

    Two of DrawBench's were not expanded or were changed. Of VBench's, a short one counts once, and
    its long one has to hold a word of it.
    """
    # lists of unequal lengths give other prompts than the suite's, which is found there
    for (_, brief), (where, line) in zip(_lines(drawbench), _lines(upsampled), strict=False):
        if line.startswith(f"{brief.strip()}. "):
            text = line.removeprefix(f"{brief.strip()}. ")
            yield Row(where, text, "drawbench", short=brief.strip())
    met = set()
    for (_, brief), (where, line) in zip(_lines(short), _lines(long), strict=False):
        if brief.strip() not in met and _words(brief) & _words(line):
            met.add(brief.strip())
            yield Row(where, line, "vbench", short=brief.strip())


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{2,}", text.lower()))


def _shapes() -> Iterator[Row]:
    """The shapes world's own; facts say where `zoo.world.evaluation_set` has those of a prompt."""
    from lavi_bridge.zoo.world import evaluation_set

    asked, _scenes = evaluation_set(SHAPES_PER_CATEGORY, SHAPES_SEED)
    for index, prompt in enumerate(asked):
        facts = {"per_category": SHAPES_PER_CATEGORY, "seed": SHAPES_SEED, "index": index}
        yield Row(f"shapes:{index}", prompt.text, prompt.category, facts=facts)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {".txt": txt, ".tsv": tsv, ".jsonl": jsonl}
"""By the ending of a file of one's own."""


# The suites ---------------------------------------------------------------------------------------

COMPBENCH = Source("Karine-Huang/T2I-CompBench", "1b7094991a57f3c22abdd4f6e8ba6c1a15517073", "MIT")
DALLE3 = Source("openai/dalle3-eval-samples", "d7c88c07b492ad7b9fd3003126d00719a2edabb1", "MIT")
ELLA = Source("TencentQQGYLab/ELLA", "3c228f1dc6c4d3cad0a47493816151a419f14db3", "Apache-2.0")
GENEVAL = Source("djghosh13/geneval", "af4902f24d3ca90ebbb446dd9891a59e0f82725f", "MIT")
PARTI = Source("google-research/parti", "5a657978134374ce28973948331b319adef164bd", "Apache-2.0")
VBENCH = Source("Vchitect/VBench", "45e79ec14e69a2187202c675d2dbce1a71843d53", "Apache-2.0")

# fmt: off
_COCO = File(
    DALLE3, "prompts/8k_coco.txt",
    "adb3104d68aae027be0da1d078f9ea7eca83f07d098aaa39a400dc6474640c8a",
    "dalle3_eval/8k_coco.txt")
_DRAWBENCH = File(
    DALLE3, "prompts/drawbench.txt",
    "3d4f4b2db7520208ee056d470202c07fd77766b96d133ea9f4ab00a323381e9a",
    "dalle3_eval/drawbench.txt")
_UPSAMPLED = File(
    DALLE3, "prompts/drawbench_upsampled.txt",
    "8405d5e1318c8bc9f5bc8c3e41fdfaab5587170a9f4fa6d8c3e2f2d0ba8ed18e",
    "dalle3_eval/drawbench_upsampled.txt")
_VBENCH_SHORT = File(
    VBENCH, "prompts/all_dimension.txt",
    "f9b50654f81ab732b9235d5bb91f0c3a4d152fac19249ce3a3a9185b2d80d8c3",
    "vbench/short.txt")
_VBENCH_LONG = File(
    VBENCH, "prompts/augmented_prompts/gpt_enhanced_prompts/all_dimension_longer.txt",
    "58ed0665de52c1bdb4820af01327f5cc1138bedbeedcc63902751056f6bf5768",
    "vbench/long.txt")
_GENEVAL = File(
    GENEVAL, "prompts/evaluation_metadata.jsonl",
    "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    "geneval/evaluation_metadata.jsonl")
_PARTI = File(
    PARTI, "PartiPrompts.tsv",
    "fab29e41bb512a169b56acab4cf2a41dcb675e285df2efcde6640c7dd3c440eb",
    "parti/PartiPrompts.tsv")
_DPG = File(ELLA, "", None, "dpg_bench/prompts")
_COMPBENCH = {  # category: hash of its prompts, sha256 of its file
    "color": ("a46e9322551b29e8",
              "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d"),
    "shape": ("2e60f0c992a2a473",
              "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae"),
    "texture": ("cc0e96aa898677d6",
                "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f"),
    "spatial": ("11de96bcc1962406",
                "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988"),
    "non-spatial": ("5e3885f9782cc26e",
                    "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d"),
    "complex": ("77b3a01bbe0f2f79",
                "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4"),
    "3d-spatial": ("ee315c542a14cc86",
                   "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9"),
    "numeracy": ("7ddae57b6a897fa4",
                 "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe"),
}


_COMPLEX: dict[Kind, str] = {
    "spatial": "6c7ac0ab75c7c9080cfc7b421fb059b9b0febb98471707aeedf58771088abc02",
    "action": "d49ee4c7f99e3f3379fb8704a54ff5288b83bb412971edf616a4721c2473308e",
    "spatialaction": "e02ddc7fed812e6577e7386ec2137ce0a994a5ce19771661f68df7ac349a6ca9",
}


def _compbench_file(name: str, pinned: str) -> File:
    return File(COMPBENCH, f"examples/dataset/{name}", pinned, f"t2i_compbench/{name}")


def _compbench(*categories: str) -> tuple[Part, ...]:
    parts = []
    for category in categories:
        content, pinned = _COMPBENCH[category]
        name = f"{category.replace('-', '_')}_val.txt"
        file = _compbench_file(name, pinned)
        parts.append(Part(300, content, (file,), partial(txt, category=category), (category,)))
    return tuple(parts)


_SUITES = (
    Suite("short", "COCO captions",
          (Part(8192, "6c69c424c5530a8e", (_COCO,), txt),),
          protocol="captions of COCO 2014, of which the paper took a subset"),
    Suite("long", "Expanded prompts",
          (Part(1133, "0d1a6d8d961f464e",
                (_VBENCH_SHORT, _VBENCH_LONG, _DRAWBENCH, _UPSAMPLED), _pairs,
                ("drawbench", "vbench"),
                ("short_long_pairs.tsv", ("category", "short", "prompt"))),),
          protocol="public pairs; for the paper's way, `lavi-bridge expand short` with Llama-2"),
    Suite("t2i-compbench", "T2I-CompBench",
          _compbench("color", "shape", "texture", "spatial", "non-spatial", "complex"), 10,
          "validation lists, seeds 42 to 51; the paper's six categories"),
    Suite("t2i-compbench-3d", "T2I-CompBench 3-D spatial", _compbench("3d-spatial"), 10,
          "validation list, seeds 42 to 51"),
    Suite("t2i-compbench-numeracy", "T2I-CompBench numeracy", _compbench("numeracy"), 10,
          "validation list, seeds 42 to 51"),
    Suite("geneval", "GenEval",
          (Part(553, "430c12661ffbe4b3", (_GENEVAL,), partial(jsonl, category="tag"),
                ("single_object", "two_object", "counting", "colors", "position", "color_attr")),),
          4, "the score is the mean of the six categories"),
    Suite("dpg", "DPG-Bench",
          (Part(1065, "b853ca6f3a2417d9", (_DPG,), _texts,
                table=("dpg_bench.tsv", ("id", "prompt"))),),
          4, "a file a prompt: fetched as an archive of the repository"),
    Suite("drawbench", "DrawBench",
          (Part(200, "33849b492a944e83", (_DRAWBENCH,), txt),),
          4, "as in DALL·E 3's evaluation"),
    Suite("parti", "PartiPrompts",
          (Part(1632, "f7efe62cbf16a269", (_PARTI,), tsv,
                ("Abstract", "World Knowledge", "People", "Animals", "Artifacts", "Arts",
                 "Food & Beverage", "Illustrations", "Indoor Scenes", "Outdoor Scenes",
                 "Produce & Plants", "Vehicles")),),
          protocol="no number of images is prescribed"),
    Suite("shapes", "Shapes world",
          (Part(6 * SHAPES_PER_CATEGORY, "", (), _shapes,
                ("color", "shape", "texture", "spatial", "count", "complex")),),
          protocol="drawn here: the world that the bundled models know"),
)
# fmt: on
SUITES = {suite.name: suite for suite in _SUITES}
"""By the name that `--suites` takes."""
