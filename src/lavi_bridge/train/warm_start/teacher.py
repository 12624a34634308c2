"""The text encoder that a warm start copies, and whether its states can be matched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import OwnEncoders, load_own, own_length
from lavi_bridge.config import Match
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import Language, load_language
from lavi_bridge.running.widened import widen
from lavi_bridge.train.warm_start.pairs import Pair, tokens_read


def check_match(bridge: Bridge, teacher: Language, match: Match, pairs: Sequence[Pair]) -> bool:
    """Whether the bridge's states can be compared with the teacher's, one by one or as sets.

    Raises:
        BridgeError: they cannot, or not so, and `match` asks for it.
    """
    adapter = bridge.adapter
    impossible = sets_impossible if adapter.per_own_token else states_impossible
    reason = impossible(bridge, teacher)
    if reason and match != "predictions":
        raise BridgeError(f"states cannot be matched: {reason}; match predictions instead")
    if adapter.per_own_token and match in ("states", "both"):
        raise BridgeError(
            f"the '{adapter.kind}' adapter gives no state for each token of "
            f"'{bridge.language.place.id}', but for those of the own encoder; match sets or "
            "predictions instead"
        )
    if adapter.per_own_token and match == "sets" and all(p.ours == p.theirs for p in pairs):
        raise BridgeError(
            f"the '{adapter.kind}' adapter has nothing to learn from captions that both sides read "
            "alike: give pairs of two texts (--warm-start-pairs)"
        )
    return not reason


def sets_impossible(bridge: Bridge, teacher: Language) -> str | None:
    """Why states for the own encoder's tokens cannot be matched as sets; None where they can."""
    vision, own = bridge.vision, bridge.own_encoders
    assert own is not None  # the adapter needs it
    if vision.masks or vision.own_alone:
        what = "masks" if vision.masks else "leaves out"
        return (
            f"'{vision.place.id}' {what} the padding of its own encoder, so two texts have sets of "
            "different sizes"
        )
    ours, theirs = own_length(own, vision), own_length(teacher, vision)
    if ours != theirs:
        return f"'{teacher.place.id}' gives {theirs} tokens and the own encoder {ours}"
    return None


def states_impossible(bridge: Bridge, teacher: Language) -> str | None:
    """Why the teacher's states cannot be matched one by one; None where they can."""
    theirs = tokens_read(teacher, bridge)
    if isinstance(teacher, OwnEncoders) and not teacher.one_a_token:
        return f"the text encoders of '{teacher.place.id}' give no state for each token of a prompt"
    if bridge.padding != theirs and not bridge.vision.masks:
        return (
            f"the vision model reads {theirs} tokens of its own encoder, padding included, but "
            f"'{bridge.language.place.id}' gives {bridge.tokens}"
        )
    for language in (bridge.language, teacher):
        if not language.tokenizer.is_fast:
            return f"the tokenizer of '{language.place.id}' gives no character offsets"
    if not bridge.adapter.per_token:
        return f"the '{bridge.adapter.kind}' adapter does not keep one feature a token"
    return None


def find_teacher(bridge: Bridge, source: str | Path | None) -> Language:
    """The text encoder to copy: the vision model's own, or another that it understands."""
    if source is None and bridge.own_encoders is not None:
        return bridge.own_encoders
    vision, dtype = bridge.vision, bridge.language.dtype
    place = None if source is None else locate(source)
    own_folder = vision.place / vision.own_text_folder
    if place is not None and vision.own_fields and place.file("model_index.json") is not None:
        teacher = load_own(vision, dtype=dtype, place=place)
    elif place is not None:
        teacher = load_language(place, dtype=dtype)
    elif vision.own_fields == () and own_folder.file("config.json") is None:
        raise BridgeError(
            f"'{vision.place.id}' has no text encoder of its own, so there are no states to match; "
            "name the encoder that it was trained with (--warm-start-teacher: a Hub id or a "
            "folder), and where its states do not fit, match predictions"
        )
    else:
        teacher = load_own(vision, dtype=dtype)
    if teacher.width != vision.text_width:
        raise BridgeError(
            f"'{vision.place.id}' reads text of width {vision.text_width}; "
            f"'{teacher.place.id}' gives {teacher.width}"
        )
    widen(teacher)
    return teacher.to(vision.device).eval()
