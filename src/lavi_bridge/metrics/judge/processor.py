"""A judge's processor, which makes pictures and questions into what the model reads.

Pictures are resized by PIL, as everywhere in `metrics`, so that scores do not depend on what else
is installed. What is for videos is left out: it needs another package, and no judge is shown one.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import loading, quiet

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

VIDEO = "video_processor"


def load_processor(place: Place, *, trust_remote_code: bool = False) -> Any:
    """The processor of an image-and-text model, with a chat template.

    Raises:
        BridgeError: there is none, it needs a package that is missing, or has no chat template.
    """
    trust = {"trust_remote_code": trust_remote_code}
    what = f"the processor of '{place.id}'"
    with loading(what, **trust), quiet():
        kind = _class(place)
        processor = kind.from_pretrained(**place.pretrained(), **trust, backend="pil")
    if not hasattr(processor, "image_processor"):
        raise BridgeError(f"{what} is a {type(processor).__name__}, which reads no pictures")
    if template(processor) is None:
        raise BridgeError(
            f"'{place.id}' has no chat template, and a judge is asked by one: take the model's "
            "instruction-tuned form, or put its chat_template.jinja into the folder"
        )
    return processor


def template(processor: Any) -> str | None:
    """The chat template by which a model is asked."""
    for holder in (processor, processor.tokenizer):
        found = getattr(holder, "chat_template", None)
        found = found.get("default") if isinstance(found, dict) else found
        if found:
            return str(found)
    return None


def asked(processor: Any, picture: Image, question: str) -> dict[str, Tensor]:
    """What a model reads where a question is asked about a picture, a batch of one."""
    by = template(processor)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    # a text that spells the model's own control tokens does not become them
    spelled = any(token in question for token in processor.tokenizer.get_added_vocab())
    more = {"enable_thinking": False} if by and "enable_thinking" in by else {}
    return dict(
        processor.apply_chat_template(
            [[{"role": "user", "content": content}]],
            chat_template=by,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=spelled,
            **more,
        )
    )


def blank_picture(width: int, height: int | None = None) -> Image:
    """A grey picture, by which it is seen how a question is asked."""
    from PIL import Image

    return Image.new("RGB", (width, height or width), "gray")


def template_hash(processor: Any) -> str:
    """8 hex digits of the chat template."""
    return hashlib.sha256((template(processor) or "").encode()).hexdigest()[:8]


def _class(place: Place) -> Any:
    """The processor's class by its name in the files, or by the model's type, without videos."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    names = []
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        with suppress(BridgeError):
            names.append(place.json(file).get("processor_class"))
    names.append(PROCESSOR_MAPPING_NAMES.get(place.json("config.json").get("model_type", "")))
    name = next(filter(None, names), None)
    kind = getattr(transformers, name, None) if name else None
    if kind is None:
        return transformers.AutoProcessor
    return without_video(kind)


def without_video(kind: Any) -> Any:
    """A class of processors without its part for videos, where that is the last of its parts."""
    parts = kind.get_attributes()
    if VIDEO not in parts or parts.index(VIDEO) < len(parts) - 1:
        return kind
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: parts[:-1])})
