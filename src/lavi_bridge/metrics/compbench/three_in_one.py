"""The complex compositions of T2I-CompBench: the mean of those of its three scores that apply.

Follows 3_in_1_eval/3_in_1.py of the official code. The three are BLIP-VQA, the spatial score and
CLIP's, the latter two as they read prompts of the complex category.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lavi_bridge.errors import BridgeError
from lavi_bridge.metrics.compbench.quirks import Mode, Quirk
from lavi_bridge.prompts.catalogue import Kind

QUIRKS = (
    Quirk(
        "first sentence",
        official="looks a prompt up by its text before the first period, in lower case",
        fixed="looks it up as it stands",
        where="3_in_1_eval/3_in_1.py: main, split('.')[0].lower()",
    ),
    Quirk(
        "unlisted",
        official="takes a prompt that neither list names for one with both relations, and never "
        "reads the third list",
        fixed="is an error where none of the three lists names the prompt",
        where="3_in_1_eval/3_in_1.py: main, else",
    ),
    Quirk(
        "listed twice",
        official="leaves the action out where the spatial list and the action list name a prompt",
        fixed="takes both",
        where="3_in_1_eval/3_in_1.py: main, elif",
    ),
)


def kind_of(text: str, lists: Mapping[Kind, Collection[str]], *, mode: Mode = "faithful") -> Kind:
    """Which relations a prompt has, by the official lists (complex_val_<kind>.txt).

    Raises:
        BridgeError: no list names the prompt, in mode `fixed`.
    """
    if mode == "faithful":
        kinds: tuple[Kind, Kind] = ("spatial", "action")
        named = (kind for kind in kinds if _key(text) in map(_key, lists[kind]))
        return next(named, "spatialaction")
    found = [kind for kind, texts in lists.items() if text in texts]
    if not found:
        raise BridgeError(f"no list of complex prompts names '{text}'")
    return found[0] if len(found) == 1 else "spatialaction"


def _key(text: str) -> str:
    return text.partition(".")[0].lower()


def three_in_one(attribute: float, spatial: float, action: float, kind: Kind) -> float:
    """The score of an image by BLIP-VQA, the spatial score and CLIP's; modes do not differ."""
    if kind == "spatial":
        return (spatial + attribute) * 0.5
    if kind == "action":
        return (action + attribute) * 0.5
    return (attribute + spatial + action) / 3
