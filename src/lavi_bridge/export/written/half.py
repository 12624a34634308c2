"""The text half of a bridge: a language model and an adapter, from prompts to what is read of them.

The adapter computes in float32, whatever the language model's precision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer

from lavi_bridge.adapters import ADAPTERS
from lavi_bridge.export.written.base import load_base
from lavi_bridge.text import Text

LANGUAGE, ADAPTER = "language", "adapter/diffusion_pytorch_model.safetensors"
"""In folders of their own: of one with weights diffusers fetches nothing else from the Hub."""


class TextHalf(ModelMixin, ConfigMixin):
    """Reads prompts for an image model.

    Args:
        adapter_config: the adapter's kind and sizes.
        tokens: of a prompt that are read at most.
        padding: tokens up to which padding is read, where it is not masked.
        masking: `read`: padding is read; `masked`: it is not; `zeroed`: it is zeros.
        layers: numbers of the language model's states that are read; None for the last ones.
        averaged: their mean is handed on, otherwise they lie side by side.
        template: the text before every prompt, the ids that it begins with, and whether it brings
            the start token itself.
        first: the token of an empty prompt.
        pad: the token that prompts are filled up with.
        float16: whether the language model can be run in it.
    """

    config_name = "config.json"
    language: Any
    tokenizer: Any
    asked: torch.dtype | None = None
    """The precision of what is handed on, where one was asked for."""

    @register_to_config
    def __init__(
        self,
        adapter_config: dict[str, Any],
        tokens: int,
        padding: int,
        masking: str,
        layers: list[int] | None = None,
        averaged: bool = False,
        template: dict[str, Any] | None = None,
        first: int = 0,
        pad: int = 0,
        float16: bool = True,
    ) -> None:
        super().__init__()
        told = adapter_config
        self.adapter = ADAPTERS[told["kind"]](
            told["in_dim"],
            told["out_dim"],
            pooled=told.get("pooled_dim", 0),
            more=told.get("more_dims", ()),
            inner=told.get("inner_dim"),
        )
        self.adapter.mix_layers(told.get("mixed_layers", 0))

    @classmethod
    def from_pretrained(
        cls,
        place: str,
        subfolder: str = "",
        revision: str | None = None,
        torch_dtype: Any = None,
        dtype: Any = None,
        **_options: Any,
    ) -> Any:
        """Load it from a folder, or from the Hub, where it is in a subfolder."""
        if not Path(place).is_dir():
            kept = f"{subfolder}/*" if subfolder else None
            place = snapshot_download(str(place), revision=revision, allow_patterns=kept)
        folder, asked = Path(place, subfolder), dtype or torch_dtype
        half = cls.from_config(cls._dict_from_json_file(folder / cls.config_name))
        overflows = asked == torch.float16 and not half.config.float16
        half.language = load_base(folder / LANGUAGE, None if overflows else asked)
        half.asked = asked
        half.tokenizer = AutoTokenizer.from_pretrained(folder / LANGUAGE, trust_remote_code=False)
        half.adapter.float().load_state_dict(load_file(folder / ADAPTER))
        return half.eval().requires_grad_(False)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the pipeline that this is a part of."""
        return self.asked or next(self.language.parameters()).dtype

    def to(self, *args: Any, **options: Any) -> Any:
        """Move or cast it; a language model that overflows in float16 stays in float32."""
        before = next(self.language.parameters()).dtype
        super().to(*args, **options)
        after = next(self.language.parameters()).dtype
        if after != before:
            self.asked = after
        if after == torch.float16 and not self.config.float16:
            self.language.float()
        return self

    def save_pretrained(self, *_args: Any, **_options: Any) -> None:
        """Refuse: the exported folder holds more than diffusers would write."""
        raise NotImplementedError(
            "copy the exported folder instead: it is all that this was made of"
        )

    @torch.no_grad()
    def forward(self, prompts: Sequence[str], own: Text | None = None) -> Text:
        """Prompts -> what the image model reads.

        Args:
            own: the own encoder's reading of the same prompts, for adapters that keep it.
        """
        ids, mask = self.read(*self.tokenize(prompts))
        return self.adapt(ids, mask, own)

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Prompts -> ids (batch, tokens) and a mask of real tokens; an empty one keeps one."""
        options = {"padding": "max_length", "truncation": True, "padding_side": "right"}
        before, length = self.config.template, self.config.tokens
        texts = [re.sub("[\ud800-\udfff]", "\ufffd", prompt) for prompt in prompts]  # lone halves
        if before:
            ids, mask = self.behind(before, texts, length)
        else:
            found = self.tokenizer(texts, max_length=length, return_tensors="pt", **options)
            ids, mask = found["input_ids"], found["attention_mask"]
        empty = mask.sum(1) == 0
        ids[empty, 0], mask[empty, 0] = self.config.first, 1
        return ids, mask

    def behind(
        self, before: dict[str, Any], texts: Sequence[str], length: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens of prompts as they are behind the template, without its own; and their mask."""
        told = self.tokenizer(
            [before["text"] + text for text in texts],
            add_special_tokens=not before["chat"],
            return_offsets_mapping=True,
            truncation=True,
            max_length=len(before["ids"]) + length,
        )
        ids = torch.full((len(texts), length), self.config.pad)
        mask = torch.zeros_like(ids)
        for row, (found, spans) in enumerate(
            zip(told["input_ids"], told["offset_mapping"], strict=True)
        ):
            inside = [i for i, (_, stop) in enumerate(spans) if 0 < stop <= len(before["text"])]
            kept = found[inside[-1] + 1 if inside else 0 :][:length]
            ids[row, : len(kept)], mask[row, : len(kept)] = torch.tensor(kept), 1
        return ids, mask

    def read(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is read of tokens: all and their mask; or padding, too, up to a length."""
        if self.config.masking != "read":
            return ids, mask
        if self.config.tokens == self.config.padding:
            return ids, None
        reach = mask.sum(1, keepdim=True).clamp(min=self.config.padding)
        longest = int(reach.max())
        mask = (torch.arange(longest) < reach).long()
        return ids[:, :longest], None if bool(mask.all()) else mask

    def adapt(self, ids: Tensor, mask: Tensor | None, own: Text | None = None) -> Text:
        """Tokens (batch, tokens) and their mask -> what the image model reads, in float32."""
        device = next(self.language.parameters()).device
        mask = None if mask is None else mask.to(device)
        hidden = self.hidden(ids.to(device), mask)
        text = self.adapter.float().prepare(Text(hidden, mask, own=own))
        if self.config.masking == "zeroed" and text.mask is not None:
            text = Text(text.hidden * text.mask.unsqueeze(-1), text.mask, text.pooled)
        return text

    def hidden(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """The language model's states (batch, tokens, width), without those of a template."""
        before = self.config.template["ids"] if self.config.template else []
        if before:
            ids = torch.cat([ids.new_tensor(before).expand(len(ids), -1), ids], 1)
            mask = None if mask is None else nn.functional.pad(mask, (len(before), 0), value=1)
        layers = self.config.layers
        options = {} if layers is None else {"output_hidden_states": True}
        found = self.language(input_ids=ids, attention_mask=mask, **options)
        if layers is None:
            states = found.last_hidden_state
        elif len(layers) == 1:
            states = found.hidden_states[layers[0]]
        else:  # normalised first, as their sizes differ
            each = [found.hidden_states[layer].float() for layer in layers]
            each = [nn.functional.layer_norm(one, one.shape[-1:]) for one in each]
            joined = torch.stack(each).mean(0) if self.config.averaged else torch.cat(each, -1)
            states = joined.to(found.hidden_states[0].dtype)
        return states[:, len(before) :]
