"""The paper's three tables as data: which pairs, which parts, and what is concluded from them.

Source: arXiv 2403.07860, tables 1 to 3. Rows that the paper does not have say so by having no
published figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from lavi_bridge.recipes import ABLATIONS, LDM, PIXART, RECIPES, SD

Recipe = Literal["ours", "paper"]


@dataclass(frozen=True)
class StandIn:
    """A bundled model, and the real one that it stands for in the tables."""

    zoo: str
    full: str


UNTRAINED = "untrained"
LANGUAGES = {
    "clip": StandIn("zoo:tiny-sd/text_encoder", f"{SD}/text_encoder"),
    "t5-small": StandIn("zoo:tiny-t5-small", "google-t5/t5-small"),
    "t5-base": StandIn("zoo:tiny-t5-base", "google-t5/t5-base"),
    "t5-large": StandIn("zoo:tiny-t5-large", "google-t5/t5-large"),
    "llama": StandIn("zoo:tiny-llama", "meta-llama/Llama-2-7b-hf"),
    # made on the spot, with other first weights for every seed
    UNTRAINED: StandIn("zoo:tiny-t5-large", "google-t5/t5-large"),
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
    published: dict[str, float] = field(default_factory=dict, hash=False)
    """What the paper has for it, by the keys of `recipes.METRICS`."""

    @property
    def trained(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.language)

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
        changed = self.adapter if self.adapter != "feedforward" else ""
        recipe = "" if self.recipe == "ours" else self.recipe
        return "-".join(filter(None, (self.language, self.vision, changed, loras, recipe)))


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
_WHOLE = Row("T5-Large", published=_published("paper-t5-large-sd"))
_CLIP = Row("CLIP, its own, re-joined", "clip", published=_published("paper-clip-sd"))


def _under(recipe: Recipe, rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(replace(row, recipe=recipe) if row.trained else row for row in rows)


def _languages(recipe: Recipe) -> Table:
    rows = _under(
        recipe,
        (
            _ALONE,
            Row("untrained T5-Large", UNTRAINED),
            _CLIP,
            Row("T5-Small", "t5-small", published=_published("paper-t5-small-sd")),
            Row("T5-Base", "t5-base", published=_published("paper-t5-base-sd")),
            _WHOLE,
            Row("Llama", "llama", published=_published("paper-llama2-sd")),
        ),
    )
    _, untrained, clip, small, base, large, llama = (row.slug for row in rows)
    conclusions = (
        Conclusion(
            "A trained language model beats an untrained one of the same shape",
            large,
            untrained,
            paper=False,
        ),
        Conclusion("Of one family the larger is better: T5-Base over T5-Small", base, small),
        Conclusion("Of one family the larger is better: T5-Large over T5-Base", large, base),
        Conclusion("Llama is better than T5-Large", llama, large),
        Conclusion("Llama is better than CLIP, the image model's own", llama, clip),
    )
    return Table("languages", "Language models with one image model, U-Net(SD)", rows, conclusions)


def _visions(recipe: Recipe) -> Table:
    rows = _under(
        recipe,
        (
            Row("U-Net(LDM) alone", "", "ldm"),
            Row("U-Net(LDM)", vision="ldm", published=_published("paper-t5-large-ldm")),
            replace(_ALONE, title="U-Net(SD) alone"),
            replace(_WHOLE, title="U-Net(SD)"),
            Row("PixArt alone", "", "pixart"),
            Row(
                "Transformer(PixArt)",
                vision="pixart",
                published=_published("paper-t5-large-pixart"),
            ),
        ),
    )
    _, ldm, _, sd, _, pixart = (row.slug for row in rows)
    conclusions = (
        Conclusion(
            "A better image model draws better pictures: U-Net(SD) over U-Net(LDM)",
            sd,
            ldm,
            look="pictures",
        ),
        Conclusion(
            "A better image model draws better pictures: PixArt over U-Net(SD)",
            pixart,
            sd,
            look="pictures",
        ),
        Conclusion("It follows prompts better, too: U-Net(SD) over U-Net(LDM)", sd, ldm),
        Conclusion("It follows prompts better, too: PixArt over U-Net(SD)", pixart, sd),
    )
    return Table("visions", "Image models with one language model, T5-Large", rows, conclusions)


_PARTS = (
    replace(_CLIP, title="its own encoder through the bridge"),
    Row(
        "without adapter (one linear layer)",
        adapter="linear",
        published=ABLATIONS["T5-Large + U-Net, w/o adapter"],
    ),
    Row(
        "without LoRA",
        language_lora=False,
        vision_lora=False,
        published=ABLATIONS["T5-Large + U-Net, w/o LoRA"],
    ),
    Row("vision LoRA alone", language_lora=False),
    Row("language LoRA alone", vision_lora=False),
    replace(_WHOLE, title="the whole"),
)


def _parts(recipe: Recipe) -> Iterator[Row]:
    for row in _PARTS:
        # the published figures are those of the paper's recipe
        yield replace(row, recipe=recipe, published=row.published if recipe == "paper" else {})


def _part_conclusions(recipe: Recipe) -> Iterator[Conclusion]:
    end = "" if recipe == "ours" else "-paper"
    under = f"({recipe})"
    whole = f"t5-large-sd{end}"
    yield Conclusion(
        f"Re-joining a model to its own encoder is no gain {under}",
        f"clip-sd{end}",
        "sd-alone",
        gain=False,
    )
    yield Conclusion(f"The adapter matters {under}", whole, f"t5-large-sd-linear{end}")
    yield Conclusion(f"LoRA matters {under}", whole, f"t5-large-sd-no-lora{end}")
    yield Conclusion(
        f"LoRA in both beats LoRA in the image model alone {under}",
        whole,
        f"t5-large-sd-vision-lora{end}",
        paper=False,
    )
    yield Conclusion(
        f"LoRA in both beats LoRA in the language model alone {under}",
        whole,
        f"t5-large-sd-language-lora{end}",
        paper=False,
    )
    yield Conclusion(f"T5-Large beats the image model alone {under}", whole, "sd-alone")


def _ablations(_recipe: Recipe) -> Table:
    """Both recipes side by side, whichever the other tables are under."""
    return Table(
        "ablations",
        "What each part is worth: T5-Large with U-Net(SD)",
        (_ALONE, *_parts("ours"), *_parts("paper")),
        (
            *_part_conclusions("ours"),
            *_part_conclusions("paper"),
            Conclusion(
                "Our recipe, which begins with a warm start, beats the paper's",
                "t5-large-sd",
                "t5-large-sd-paper",
                paper=False,
            ),
        ),
    )


TABLES = {"languages": _languages, "visions": _visions, "ablations": _ablations}
"""By name, in the paper's order."""


def table_of(name: str, *, full: bool = False) -> Table:
    """A table by name.

    The first two train all rows under one recipe: with the real models the paper's, with the
    bundled ones, whose runs are short, ours.
    """
    return TABLES[name]("paper" if full else "ours")


def rows_of(tables: Iterable[str], *, full: bool = False) -> list[Row]:
    """The rows of several tables, each once."""
    found: dict[str, Row] = {}
    for name in tables:
        for row in table_of(name, full=full).rows:
            found.setdefault(row.slug, row)
    return list(found.values())
