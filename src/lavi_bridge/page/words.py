"""The words of a prompt, each the redder the more it moved the picture, as HTML."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from lavi_bridge.evaluate.influence import NEUTRAL, Influence


def strip(prompt: str, words: Sequence[Influence]) -> str:
    """The prompt with its words coloured, and how far each moved the picture in percent."""
    most = max((word.change for word in words), default=0) or 1.0
    parts, end = [], 0
    for word in words:
        parts += [Markup("{}").format(prompt[end : word.start]), _word(word, word.change / most)]
        end = word.start + len(word.word)
    parts.append(Markup("{}").format(prompt[end:]))
    return str(
        Markup(
            '<div class="lb-words"><p>{}</p><p class="lb-ids">Below each word: how far the picture '
            "moves without it and with “{}” in its place, mean of both in % of full scale, same "
            "seed.</p></div>"
        ).format(Markup("").join(parts), NEUTRAL)
    )


def waiting(done: int, of: int) -> str:
    """How far it is."""
    return str(
        Markup(
            '<div class="lb-words"><p class="lb-ids">drawing without each word: {} of {}</p>'
            '<div class="lb-bar"><i style="width:{}%"></i></div></div>'
        ).format(done, of, 100 * done // max(1, of))
    )


def _word(word: Influence, share: float) -> Markup:
    told = (
        f"left out {100 * word.left_out.mean():.1f} %, replaced {100 * word.replaced.mean():.1f} %"
    )
    return Markup(
        '<span class="lb-heat" style="--heat:{:.0f}%" title="{}">{}<small>{:.1f}</small></span>'
    ).format(100 * share, told, word.word, 100 * word.change)
