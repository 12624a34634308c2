"""The text encoder that a warm start copies, and whether its states can be matched one by one."""

from __future__ import annotations

from pathlib import Path

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.bridge.own import OwnEncoders, load_own
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import Language, load_language
from lavi_bridge.train.warm_start.pairs import tokens_read


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
    return teacher.to(vision.device).eval()
