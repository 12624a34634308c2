"""What every language model can do: cut prompts into tokens and give a hidden state for each.

A family says only how it differs: the transformers class that loads it, where LoRA goes (the
published targets are the four projections of every attention layer), how many tokens it can
read, and what to pad with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lavi_bridge.config import LoRA, Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import load_pretrained, loading
from lavi_bridge.files.weights import Fingerprint, fingerprint_of, open_gguf
from lavi_bridge.languages.loading.quantize import quantized
from lavi_bridge.languages.loading.tokenizer import (
    choose_pad_token,
    load_tokenizer,
    unknown_token,
)
from lavi_bridge.languages.reading import Reading
from lavi_bridge.languages.template import Template
from lavi_bridge.registry import Registry
from lavi_bridge.running.device import to_device
from lavi_bridge.running.quantize import keep_trainable
from lavi_bridge.show.output import whole

LANGUAGES: Registry[Language] = Registry("language family")


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenized prompts on the CPU, padded on the right."""

    ids: Tensor  # (batch, tokens)
    mask: Tensor  # (batch, tokens), 1 = real token
    longest: int
    """Tokens of the longest prompt, before cutting."""
    cut: int
    """How many prompts were longer than the limit and lost their end."""


class Language(nn.Module):
    """A frozen language model with its tokenizer."""

    model_class: ClassVar[str] = "AutoModel"
    """Name of the class in transformers."""
    model_options: ClassVar[dict[str, Any]] = {}
    """Further arguments of that class's `from_pretrained`."""
    lora_targets: ClassVar[str] = ""
    """Regular expression for the layers that get LoRA."""
    pads: ClassVar[tuple[str, ...]] = ("eos", "unk", "bos")
    """Special tokens to pad with, best first, for a tokenizer that names no pad token."""
    float16_safe: ClassVar[bool] = True
    shortens: ClassVar[bool] = True
    """Whether layers above those that are read may be let go."""

    model: Any  # a module whose class is known only when it is loaded

    def __init__(self, model: nn.Module, tokenizer: Any, place: Place) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.place = place
        self.lora: LoRA | None = None
        self.reading: Reading | None = None
        """What is read of its layers; None for the last hidden states."""
        self.let_go = 0
        """Parameters of layers that are not read, and not kept."""
        self.template: Template | None = None
        """What stands before every prompt."""
        if tokenizer is not None:
            choose_pad_token(tokenizer, self.pads, self.embeddings, place)

    @property
    def trunk(self) -> Any:
        """The frozen network that LoRA goes into."""
        return self.model

    @classmethod
    def load(
        cls,
        place: Place,
        *,
        dtype: torch.dtype,
        quantize: Quantize = "none",
        device: torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load model and tokenizer; `place` holds a checkpoint in transformers' layout.

        Quantised weights are made on `device` layer by layer: the whole model is never there.
        """
        if dtype == torch.float16 and not cls.float16_safe:
            raise BridgeError(f"'{place.id}' overflows in float16; use bfloat16 or float32")
        model = load_pretrained(
            cls._model_class(),
            place,
            f"language model '{place.id}'",
            unused="pooler",  # sits behind the hidden states
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            **cls.model_options,
            **quantized(quantize, dtype, device),
        )
        if quantize != "none":
            keep_trainable(model)
        tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
        return cls(cls.prepare(model), tokenizer, place)

    @classmethod
    def outline(cls, place: Place, *, trust_remote_code: bool = False) -> Self:
        """Build the model without weights (on the meta device) from its config alone."""
        from transformers import AutoConfig

        model_class = cls._model_class()
        config_class = getattr(model_class, "config_class", None) or AutoConfig
        trust = {"trust_remote_code": trust_remote_code}
        build, options = getattr(model_class, "from_config", None), cls.model_options | trust
        if build is None:  # a class of one model: its code is here
            build, options = model_class._from_config, cls.model_options
        with loading(f"language model '{place.id}'", trust_remote_code=trust_remote_code):
            config = config_class.from_pretrained(**place.pretrained(), **trust)
            with torch.device("meta"):
                model = build(config, **options)
        return cls(cls.prepare(model), None, place)

    @classmethod
    def prepare(cls, model: Any) -> Any:
        """Keep the part of a loaded checkpoint that is used; the families override this."""
        return model

    @classmethod
    def _model_class(cls) -> Any:
        import transformers

        return getattr(transformers, cls.model_class)

    @property
    def config(self) -> Any:
        """The text part of the checkpoint's own config."""
        return self.model.config.get_text_config()

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        width = getattr(self.config, "hidden_size", None)
        if width is None:
            kind = type(self.model).__name__
            raise BridgeError(f"'{self.place.id}' ({kind}) is no text model: it has no hidden_size")
        return int(width)

    @property
    def handed_width(self) -> int:
        """Numbers of a token that are handed on: a hidden state, or several side by side."""
        return self.width * (1 if self.reading is None else self.reading.many)

    @property
    def room(self) -> int | None:
        """The longest prompt that the model can read, beside what stands before it."""
        before = 0 if self.template is None else len(self.template)
        return None if self.max_tokens is None else self.max_tokens - before

    @property
    def max_tokens(self) -> int | None:
        """The longest text the model can read; None where positions have no end."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def embeddings(self) -> int | None:
        """Token ids lie below this; None where the model does not look them up in a table."""
        return getattr(self.config, "vocab_size", None)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen weights."""
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """16 hex digits that identify the frozen weights; see `weights.fingerprint`."""
        return fingerprint_of(self.place)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.hidden(input_ids, attention_mask)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids of prompts (batch, tokens) -> what is handed on (batch, tokens, handed width).

        These are the last hidden states, where no `reading` asks for others. Without a mask every
        token is read, padding too: as published for the U-Nets.
        """
        if self.template is not None:
            input_ids, attention_mask = self.template.before(input_ids, attention_mask)
        mask: Any = None if attention_mask is None else self._mask(attention_mask)
        options = {} if self.reading is None else {"output_hidden_states": True}
        output = self._run(to_device(input_ids, self.device), mask, **options)
        if self.reading is None:
            states: Tensor = output.last_hidden_state
        else:
            states = self.reading(getattr(output, "hidden_states", None))
        return states if self.template is None else states[:, len(self.template) :]

    def _run(self, input_ids: Tensor, mask: Any, **options: bool) -> Any:
        """The model's answer to token ids and a mask in its form; both are on its device."""
        return self.model(input_ids=input_ids, attention_mask=mask, **options)

    def _mask(self, mask: Tensor) -> Any:
        """A mask (batch, tokens) in the form that the model takes, on its device."""
        return to_device(mask, self.device)

    def _prepared(self, mask: Tensor, name: str) -> Any:
        """A mask as transformers' function of that name makes it, where it is: on the CPU.

        The model would make the same, and wait for the device to tell whether all is ones.
        """
        from transformers import masking_utils

        stand_in = torch.empty(*mask.shape, 1, dtype=self.dtype, device=mask.device)
        made = getattr(masking_utils, name)(self.config, stand_in, mask, past_key_values=None)
        return tree_map_only(Tensor, lambda found: to_device(found, self.device), made)

    def tokenize(self, prompts: Sequence[str], length: int) -> Tokens:
        """Cut prompts into exactly `length` tokens each; an empty prompt keeps a real one.

        Raises:
            BridgeError: a token is not in the model's table.
        """
        prompts = [whole(prompt) for prompt in prompts]
        if self.template is not None:
            ids, mask = self.template.padded(prompts, length)
        else:
            encoded = self.tokenizer(
                prompts,
                padding="max_length",
                truncation=True,
                max_length=length,
                padding_side="right",
                return_tensors="pt",
            )
            ids, mask = encoded["input_ids"].long(), encoded["attention_mask"].long()
        empty = mask.sum(1) == 0  # Qwen and Mistral give no token at all for ""
        ids[empty, 0] = self.first_token
        mask[empty, 0] = 1
        highest = [int(ids.max())] if len(ids) else []
        if reason := unknown_token(highest, self.tokenizer, self.embeddings, self.place):
            raise BridgeError(reason)
        longest, cut = int(mask.sum(1).max()), 0
        if longest == length:
            full = [p for p, row in zip(prompts, mask, strict=True) if row.all()]
            lengths = self.lengths(full)
            longest, cut = max(lengths), sum(n > length for n in lengths)
        return Tokens(ids, mask, longest, cut)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each text when nothing is cut."""
        return [len(row) for row in self.token_ids(prompts)]

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Ids of each text when nothing is cut; those of a template are not among them."""
        if not prompts:
            return []
        if self.template is not None:
            return [ids for ids, _ in self.template.own(prompts)]
        encoded = self.tokenizer([whole(prompt) for prompt in prompts], verbose=False)
        return list(encoded["input_ids"])

    def spans(self, prompts: Sequence[str], length: int) -> list[list[tuple[int, int]]]:
        """First and last + 1 character of each token of `tokenize`, without blanks at its ends.

        (0, 0) for what covers no character: marks such as a start token, and padding.

        Raises:
            BridgeError: the tokenizer cannot say (it is one without offsets).
        """
        if not self.tokenizer.is_fast:
            raise BridgeError(f"the tokenizer of '{self.place.id}' gives no character offsets")
        if self.template is not None:
            rows = zip(prompts, self.template.own(prompts, length), strict=True)
            padding = [(0, 0)] * length
            return [[*(_trimmed(p, *s) for s in row[1]), *padding][:length] for p, row in rows]
        encoded = self.tokenizer(
            [whole(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=length,
            padding_side="right",
            return_offsets_mapping=True,
        )
        return [
            [_trimmed(prompt, start, stop) for start, stop in row]
            for prompt, row in zip(prompts, encoded["offset_mapping"], strict=True)
        ]

    @property
    def first_token(self) -> int:
        """What stands for an empty prompt, where the tokenizer makes no token of it."""
        tok = self.tokenizer
        ids = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
        return next(i for i in ids if i is not None and i < (self.embeddings or i + 1))


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """A span without blanks at its ends; pieces such as `▁red` count theirs in."""
    inside = text[start:stop]
    start += len(inside) - len(inside.lstrip())
    stop = start + len(inside.strip())
    return (start, stop) if stop > start else (0, 0)


def _gguf_type(place: Place) -> str:
    """The `model_type` that transformers has for the architecture of a GGUF file."""
    from transformers import AutoConfig

    open_gguf(Path(place.root, place.gguf))
    with loading(f"language model '{place.id}'"):
        return str(AutoConfig.from_pretrained(**place.pretrained()).model_type)


def load_language(
    place: Place,
    *,
    dtype: torch.dtype | None = None,
    quantize: Quantize = "none",
    device: torch.device | None = None,
    trust_remote_code: bool = False,
) -> Language:
    """Load the family that the checkpoint's `model_type` names; the default for unknown ones.

    Args:
        place: folder or Hub repository with a transformers checkpoint.
        dtype: precision of the frozen weights; None builds the model without weights.
        quantize: in which fewer bits the linear layers are held; their products are in `dtype`.
        device: where quantised weights are made.
        trust_remote_code: run code that comes with the checkpoint; never asked for, never stored.

    Raises:
        BridgeError: there is no config, or the checkpoint cannot be loaded.
    """
    model_type = _gguf_type(place) if place.gguf else place.json("config.json").get("model_type")
    if not isinstance(model_type, str):
        raise BridgeError(f"the config.json of '{place.id}' names no model_type")
    family = LANGUAGES[model_type if model_type in LANGUAGES else "default"]
    if dtype is None:
        return family.outline(place, trust_remote_code=trust_remote_code)
    return family.load(
        place, dtype=dtype, quantize=quantize, device=device, trust_remote_code=trust_remote_code
    )
