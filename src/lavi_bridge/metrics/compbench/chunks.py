"""What T2I-CompBench's scorers read from a parsed prompt: noun chunks, and the prompt without
adjectives.

The functions take a spaCy Doc. The parser, spaCy's small English model as in the official code, is
an optional download.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Span

ENGLISH = "en_core_web_sm"

PLACES = frozenset({"top", "the side", "the left", "the right"})
"""Chunks that are no objects, as the official code spells them."""
PLACE_WORDS = frozenset({"top", "bottom", "side", "left", "right", "front"})
"""What the official relations are made of."""

QUIRKS = (
    Quirk(
        "place words",
        official="drops the chunks top, the side, the left, the right, in that spelling only; "
        "asks about 'the top', 'side', 'The left'",
        fixed="drops top, bottom, side, left, right, front with any article and in any case",
        where="BLIPvqa_eval/BLIP_vqa.py: Create_annotation_for_BLIP",
    ),
    Quirk(
        "pronouns",
        official="asks 'it?' and 'that?', for spaCy counts pronouns among noun chunks",
        fixed="drops chunks that are nothing but a pronoun",
        where="BLIPvqa_eval/BLIP_vqa.py: Create_annotation_for_BLIP",
    ),
)


def noun_chunks(doc: Doc, *, mode: Mode = "faithful") -> list[str]:
    """The noun chunks of a prompt that name objects, in the order of the text."""
    if mode == "faithful":
        return [chunk.text for chunk in doc.noun_chunks if chunk.text not in PLACES]
    return [chunk.text for chunk in doc.noun_chunks if _is_object(chunk)]


def _is_object(chunk: Span) -> bool:
    words = [token for token in chunk if token.pos_ != "DET"]
    pronouns = all(token.pos_ == "PRON" for token in words)
    return not pronouns and " ".join(token.lower_ for token in words) not in PLACE_WORDS


def without_adjectives(doc: Doc) -> str:
    """The words of a prompt but its adjectives, with one blank between any two.

    The official CLIP score of the complex category reads prompts so (CLIPScore_eval/
    CLIP_similarity.py, --complex): attributes are judged by BLIP-VQA.
    """
    return " ".join(token.text for token in doc if token.pos_ != "ADJ")


@lru_cache(maxsize=4096)
def parsed(text: str) -> Doc:
    """A prompt, parsed by the English model; remembered, for a prompt has several images."""
    return english()(text)


@cache
def english(model: str = ENGLISH) -> Language:
    """Load spaCy's English model, or another by its name or folder.

    Raises:
        BridgeError: spaCy or the model is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise BridgeError(
            "noun chunks need spaCy: pip install 'lavi-bridge[compbench]', "
            f"then python -m spacy download {ENGLISH}"
        ) from error
    try:
        return spacy.load(model)
    except OSError as error:
        raise BridgeError(
            f"spaCy's model '{model}' is not installed: python -m spacy download {model}"
        ) from error


def parser() -> str:
    """Which spaCy and English model are installed: what they find depends on both."""
    found = []
    for package in ("spacy", ENGLISH):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found) or "none"
