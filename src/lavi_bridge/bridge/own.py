"""The text encoders that a vision model came with: the baseline, and the teacher of a warm start.

Where it was trained on one encoder's last states as they are, that encoder is a language model like
any other. Where it reads several, an inner layer, or a template around the prompt, its pipeline's
own `encode_prompt` reads the prompts, so that no encoder needs code here.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import load_pretrained, loading
from lavi_bridge.files.weights import Fingerprint, joined
from lavi_bridge.languages import Language, load_language
from lavi_bridge.running.device import to_device
from lavi_bridge.text import Text
from lavi_bridge.visions import Vision, stock
from lavi_bridge.visions.components import part_fingerprint

NULL = "null_"
"""What begins the fields that are of the null prompt."""
FIELDS = ("hidden", "mask", "pooled")


class OwnEncoders(Language):
    """All text encoders of a pipeline as one language model; see `Vision.own_fields`."""

    def __init__(self, vision: Vision, place: Place, parts: dict[str, Any]) -> None:
        encoders = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        super().__init__(nn.ModuleDict(encoders).eval(), None, place)
        self.fields = vision.own_fields or ()
        self._width = vision.text_width
        self.pipeline = stock.pipeline(vision, None, parts | _settings(vision, place))
        named = [part for name, part in parts.items() if name.startswith("tokenizer")]
        self.tokenizer = parts.get(vision.own_tokenizer or "") or (named or [None])[-1]
        self.one_a_token = vision.own_tokenizer is not None
        """Whether there is one state for each token of the tokenizer."""
        call = inspect.signature(type(self.pipeline).__call__).parameters.items()
        self._defaults = {
            name: p.default for name, p in call if name != "prompt" and p.default is not p.empty
        }
        """How the pipeline encodes prompts where a user names nothing else."""

    @property
    def width(self) -> int:
        return self._width

    @property
    def max_tokens(self) -> int | None:
        """As many as the pipeline cuts a prompt to."""
        told = self._defaults.get("max_sequence_length")
        return told or getattr(self.tokenizer, "model_max_length", None)

    @property
    def embeddings(self) -> int | None:
        return None

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """16 hex digits that identify the weights of all encoders."""
        return joined(*(part_fingerprint(self.place / name) for name in self.model))

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Refuse: several encoders have no common token ids; see `text`."""
        raise BridgeError(f"the text encoders of '{self.place.id}' read prompts, not token ids")

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Text:
        """Prompts -> what the vision model was trained to read of them.

        The empty prompt is what the pipeline guides away from where it is told no other: zeros, or
        a prompt without the template, say.
        """
        told = [prompt for prompt in prompts if prompt]
        if not told:
            return self._null().expand(len(prompts))
        text = self._encoded(told)
        if len(told) == len(prompts):
            return text
        places = iter(range(len(told)))
        order = [next(places) if prompt else len(told) for prompt in prompts]
        return Text.cat([text, self._null()]).pick(order)

    def _null(self) -> Text:
        """What is read of the empty prompt (one)."""
        if any(field.startswith(NULL) for field in self.fields):
            return self._encoded(["a"], null=True)
        return self._encoded([""])

    def _encoded(self, prompts: list[str], *, null: bool = False) -> Text:
        """Ask the pipeline; `null` for the null prompts that it makes beside these."""
        encode = self.pipeline.encode_prompt
        known = inspect.signature(encode).parameters
        options = self._defaults | {"do_classifier_free_guidance": null, "device": self.device}
        try:
            answer = encode(prompts, **{k: v for k, v in options.items() if k in known})
        except NameError as error:  # diffusers imports a package where it finds it
            raise BridgeError(
                f"the pipeline of '{self.place.id}' needs the package '{error.name}': "
                f"pip install {error.name}"
            ) from error
        parts = {
            field.removeprefix(NULL): part
            for field, part in zip(self.fields, answer, strict=False)
            if field.startswith(NULL) == null and field.removeprefix(NULL) in FIELDS
        }
        if isinstance(parts["hidden"], list):
            parts |= _padded(parts["hidden"])
        hidden = parts.pop("hidden")
        return Text(hidden.flatten(2), **parts)  # several layers are one width


@torch.no_grad()
def own_text(own: Language, vision: Vision, prompts: Sequence[str]) -> Text:
    """Prompts -> what the vision model was trained to read of them, with its mask policy."""
    if isinstance(own, OwnEncoders):
        return own.text(prompts)
    tokens = own.tokenize(prompts, own_tokens(own, vision))
    mask = tokens.mask if vision.masks else None
    hidden = own.hidden(tokens.ids, mask).float()
    return Text(hidden, None if mask is None else to_device(mask, hidden.device))


def own_tokens(own: Language, vision: Vision) -> int:
    """Tokens of a prompt that own encoders hand to a vision model."""
    return min(vision.tokens, own.max_tokens or vision.tokens)


def own_length(own: Language, vision: Vision) -> int:
    """Tokens of own encoders that a vision model reads of a prompt, of several side by side."""
    several = isinstance(own, OwnEncoders) and not own.one_a_token
    return vision.tokens if several else own_tokens(own, vision)


def load_own(vision: Vision, *, dtype: torch.dtype | None, place: Place | None = None) -> Language:
    """Load the text encoders that a vision model came with, or those of another pipeline folder.

    Args:
        dtype: None builds them without weights and tokenizers, for plans.

    Raises:
        BridgeError: the folder has none, or they cannot be read as the model was trained on them.
    """
    place = place or vision.place
    if vision.own_fields is None:
        raise BridgeError(
            f"'{vision.place.id}' reads more than one call of its pipeline's encoders gives: there "
            "is no baseline and no start without images; train on pictures"
        )
    if not vision.own_fields:
        folder = place / vision.own_text_folder
        if folder.file("config.json") is None:
            raise _none(place)
        return load_language(folder, dtype=dtype)
    index = place.json("model_index.json")
    wanted = {
        name: entry
        for name, entry in index.items()
        if name.startswith(("text_encoder", "tokenizer")) and _is_component(entry)
    }
    if not any(given[1] for given in wanted.values()):
        raise _none(place)
    getattr(diffusers, vision.pipeline_class)  # its module may bring classes of encoders
    parts = {}
    for name, (library, kind) in wanted.items():
        if kind is not None:
            parts[name] = _component(place / name, str(library), str(kind), dtype)
    return OwnEncoders(vision, place, parts)


def _none(place: Place) -> BridgeError:
    why = "; of one file only the image model is read: give the model's folder"
    return BridgeError(f"'{place.id}' has no text encoder of its own{why * bool(place.single)}")


def _component(place: Place, library: str, kind: str, dtype: torch.dtype | None) -> Any:
    """Load one encoder or tokenizer, of the class that a model_index.json names.

    Without a dtype an encoder's shapes alone, and no tokenizer.
    """
    import transformers

    what = f"'{place.id}'"
    own = getattr(diffusers.pipelines, library, None)  # such as that of Kolors
    found = getattr(transformers if library == "transformers" else own, kind, None)
    if not isinstance(found, type):
        raise BridgeError(f"{what}: neither transformers nor diffusers has '{library}.{kind}'")
    if dtype is None:
        with loading(what), torch.device("meta"):
            shapes: Any = found
            config = getattr(shapes, "config_class", None)
            return config and shapes(config.from_pretrained(**place.pretrained()))
    if issubclass(found, nn.Module):
        return load_pretrained(found, place, what, dtype=dtype)
    read: Any = found
    with loading(what):
        return read.from_pretrained(**place.pretrained())


def _settings(vision: Vision, place: Place) -> dict[str, Any]:
    """What a model_index.json says beside the components, such as which layers are read."""
    known = inspect.signature(getattr(diffusers, vision.pipeline_class).__init__).parameters
    index = place.json("model_index.json")
    settings = {k: v for k, v in index.items() if k in known and not _is_component(v)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def _is_component(entry: Any) -> bool:
    """Whether an entry of a model_index.json is a library and a class."""
    named = isinstance(entry, list) and len(entry) == 2
    return named and all(name is None or isinstance(name, str) for name in entry)


def _padded(states: list[Tensor]) -> dict[str, Tensor]:
    """States of different lengths (each tokens, width) as one tensor with a mask."""
    masks = [torch.ones(len(one), dtype=torch.long, device=one.device) for one in states]
    pad = nn.utils.rnn.pad_sequence
    return {"hidden": pad(states, batch_first=True), "mask": pad(masks, batch_first=True)}
