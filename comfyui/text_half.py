"""The text half of a bridge: a language model and an adapter, from prompts to what is read of them.

The adapter computes in float32, whatever the language model's precision.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import FeedForward
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer


@dataclass(frozen=True)
class Text:
    """A batch of encoded prompts."""

    hidden: Tensor
    """(batch, tokens, width)"""
    mask: Tensor | None = None
    """(batch, tokens), 1 = real token; None = every token is read"""
    pooled: Tensor | None = None
    """(batch, pooled width), for vision models that ask for it"""
    more: tuple[Text, ...] = ()
    """Further sequences, for vision models that read several."""
    own: Text | None = None
    """The own encoder's condition, for adapters that keep it."""


class Mix(nn.Module):
    """The mean of several layers' states by weights that are learned, alike at first (arXiv
    1802.05365, equation 1)."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))

    def forward(self, hidden: Tensor) -> Tensor:
        """States side by side (batch, tokens, layers × width) -> (batch, tokens, width)."""
        states = hidden.float().unflatten(-1, (len(self.logits), -1))
        return torch.einsum("btlw,l->btw", states, self.logits.softmax(0))


class Adapter(nn.Module):
    """Maps hidden states (batch, tokens, width_in) -> (batch, tokens', width_out), in float32.

    Args:
        pooled: width of the one vector a prompt that some vision models read beside its tokens; 0
            where there is none.
        more: widths of further sequences that some read; each has an adapter of the same kind.
        inner: the width inside; `usual_inner` by default.
    """

    kind: ClassVar[str]
    timed: ClassVar[bool] = False
    """Whether it depends on the timestep."""
    pools: ClassVar[bool] = True
    """Whether pooled vector and further sequences are its own, not the own encoder's."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        dropout: float = 0.0,
        pooled: int = 0,
        more: Sequence[int] = (),
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.width_in, self.width_out, self.dropout = width_in, width_out, dropout
        self.width_pooled, self.widths_more = pooled, tuple(more)
        self.inner = self.usual_inner(width_in, width_out) if inner is None else inner
        self.strength = 1.0
        """Of what is added, where the adapter `adds`; see `scaled`."""
        self.mixed = 0
        """Layers of the language model that are mixed first; 0 where one state a token comes."""
        if pooled and self.pools:
            self.pool = nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, pooled))
        if more and self.pools:
            self.further = nn.ModuleList(
                type(self)(width_in, width, dropout=dropout, inner=self.inner) for width in more
            )
        self.build()

    def build(self) -> None:
        """Make the layers, of the widths that are known by now."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map language features of any precision to float32 vision features."""
        raise NotImplementedError

    def mix_layers(self, count: int) -> None:
        """Learn how much each of so many layers counts; 0 changes nothing."""
        self.mixed = count
        if count:
            self.mix = Mix(count)

    def read(self, features: Text) -> Text:
        """Language features as the vision model reads them: its tokens, a pooled vector of the mean
        of all tokens that are read, and further sequences, where it asks for them."""
        return replace(
            self.tokens_of(features),
            pooled=self.pooled_of(features),
            more=tuple(one.tokens_of(features) for one in self.others()),
        )

    def mixing(self, features: Text) -> Text:
        """Features whose layers are mixed into one state a token, where several are handed on."""
        return replace(features, hidden=self.mix(features.hidden)) if self.mixed else features

    def others(self) -> list[Self]:
        """The adapters of further sequences."""
        return cast("list[Self]", list(self.further)) if self.widths_more else []

    def tokens_of(self, features: Text) -> Text:
        """One sequence of tokens and its mask."""
        return Text(self(features.hidden), features.mask)

    def pooled_of(self, features: Text) -> Tensor | None:
        """The pooled vector (batch, width), where the vision model reads one."""
        if not self.width_pooled:
            return None
        hidden = features.hidden
        every = torch.ones(hidden.shape[:2], device=hidden.device)
        mask = every if features.mask is None else features.mask
        weights = mask.float().unsqueeze(-1)  # (batch, tokens, 1)
        mean = (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
        return self.pool(mean)

    def prepare(self, features: Text) -> Text:
        """What is done once a prompt: all, unless the adapter depends on the timestep."""
        return self.read(self.mixing(features))

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        """The width inside where nothing else was asked for; 0 for kinds that have none."""
        return 0


class FeedForwardAdapter(Adapter):
    """Parameter names are those of the published checkpoints."""

    kind: ClassVar[str] = "feedforward"

    def build(self) -> None:
        middle = self.inner
        self.norm1 = nn.LayerNorm(self.width_in)
        self.ff1 = FeedForward(
            self.width_in, middle, mult=4, activation_fn="geglu", dropout=self.dropout
        )
        self.norm2 = nn.LayerNorm(middle)
        self.ff2 = FeedForward(
            middle, self.width_out, mult=4, activation_fn="geglu", dropout=self.dropout
        )

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return (width_in + width_out) // 2

    def forward(self, hidden: Tensor) -> Tensor:
        return self.ff2(self.norm2(self.ff1(self.norm1(hidden.float()))))


class LinearAdapter(Adapter):
    kind: ClassVar[str] = "linear"
    linear: ClassVar[bool] = True

    def build(self) -> None:
        self.proj = nn.Linear(self.width_in, self.width_out)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.proj(hidden.float())


HEAD = 64
"""Width of a head of attention, where the width inside is a multiple of it."""


class Attention(nn.Module):
    """Attention of queries (batch, tokens, width) to keys (batch, others, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads(width)
        self.to_q, self.to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.to_k = nn.Linear(width, width, bias=False)  # one would change nothing
        self.to_v = nn.Linear(width, width)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` (batch, others) is 0 where a key is not read."""
        q, k, v = (
            projection(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, given in ((self.to_q, x), (self.to_k, keys), (self.to_v, keys))
        )
        read = None if mask is None else mask.bool()[:, None, None]
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=read)
        return self.to_out(found.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention to keys, or to the tokens themselves, then a feed-forward; both with residuals.

    Args:
        crosses: it attends to keys from elsewhere.
        timed: its norms are scaled and shifted by an embedding of time (adaptive layer norms, as
            in ELLA, arXiv 2403.05135); at first not at all.
    """

    def __init__(
        self, width: int, *, dropout: float = 0.0, crosses: bool = False, timed: bool = False
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.norm_keys = nn.LayerNorm(width) if crosses else None
        self.attention = Attention(width)
        self.norm_inner = nn.LayerNorm(width)
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.modulation = nn.Linear(width, 4 * width) if timed else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        keys: Tensor | None = None,
        mask: Tensor | None = None,
        time: Tensor | None = None,
    ) -> Tensor:
        """(batch, tokens, width) -> the same shape.

        Args:
            keys: what is attended to, where the block crosses; the tokens themselves elsewhere.
            mask: (batch, keys), 0 where a key is not read.
            time: embedding (batch, width), for timed blocks.
        """
        normed, scale = self.norm(x), None
        if self.modulation is not None and time is not None:
            shift_a, scale_a, shift, scale = self.modulation(time).unsqueeze(1).chunk(4, -1)
            normed = normed * (1 + scale_a) + shift_a
        read = normed
        if self.norm_keys is not None and keys is not None:
            read = self.norm_keys(keys)
        x = x + self.attention(normed, read, mask)
        normed = self.norm_inner(x)
        if scale is not None:
            normed = normed * (1 + scale) + shift
        return x + self.inner(normed)


class Time(nn.Module):
    """Embeds timesteps (batch,), 0 to 1000, as vectors (batch, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.width // 2
        places = torch.arange(half, device=timesteps.device)
        rates = torch.exp(-math.log(10_000) * places / half)
        angles = timesteps.float().unsqueeze(1) * rates
        waves = torch.cat([angles.cos(), angles.sin()], 1)
        return nn.functional.silu(self.net(nn.functional.pad(waves, (0, self.width - 2 * half))))


def heads(width: int) -> int:
    """How many heads attention of a width has: of 64, or what divides it."""
    count = max(1, width // HEAD)
    return next(n for n in range(count, 0, -1) if width % n == 0)


class RefinerAdapter(Adapter):
    """Keeps one feature a token, and its mask."""

    kind: ClassVar[str] = "refiner"
    depth: ClassVar[int] = 2
    """Layers."""

    def build(self) -> None:
        self.enter = nn.Sequential(
            nn.LayerNorm(self.width_in), nn.Linear(self.width_in, self.inner)
        )
        self.layers = nn.ModuleList(
            Block(self.inner, dropout=self.dropout) for _ in range(self.depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(self.inner), nn.Linear(self.inner, self.width_out))

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return min(width_out, 1024)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.enter(hidden.float())
        for layer in self.layers:
            x = layer(x, mask=mask)
        return self.leave(x)

    def tokens_of(self, features: Text) -> Text:
        return replace(features, hidden=self(features.hidden, features.mask))


class ResamplerAdapter(Adapter):
    """Gives 64 tokens, whatever the prompt's length; all of them are read."""

    kind: ClassVar[str] = "resampler"
    depth: ClassVar[int] = 4
    """Layers."""
    many: ClassVar[int] = 64
    """Queries, and tokens that it gives."""
    per_token: ClassVar[bool] = False

    def build(self) -> None:
        self.queries = nn.Parameter(torch.randn(self.many, self.inner) / self.inner**0.5)
        self.enter = nn.Sequential(
            nn.LayerNorm(self.width_in), nn.Linear(self.width_in, self.inner)
        )
        self.layers = nn.ModuleList(
            Block(self.inner, dropout=self.dropout, crosses=True, timed=self.timed)
            for _ in range(self.depth)
        )
        self.leave = nn.Sequential(nn.LayerNorm(self.inner), nn.Linear(self.inner, self.width_out))

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        return min(width_out, 1024)

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, time: Tensor | None = None
    ) -> Tensor:
        keys = self.enter(hidden.float())
        x = self.queries.expand(len(hidden), -1, -1)
        for layer in self.layers:
            x = layer(x, keys, mask, time)
        return self.leave(x)

    def tokens_of(self, features: Text) -> Text:
        return self.all_read(self(features.hidden, features.mask), features)

    @staticmethod
    def all_read(hidden: Tensor, features: Text) -> Text:
        """Tokens of which none is padding, with a mask where the features have one."""
        ones = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        return Text(hidden, None if features.mask is None else ones)


BASE, LORA = "base.json", "lora"


def load_base(folder: Path, dtype: torch.dtype | None) -> Any:
    """Load the model that `base.json` tells of, and put the LoRA layers beside it into it.

    Args:
        folder: holds `base.json`; weights in its `subfolder`, where it names no `id`; and LoRA.

    Raises:
        ValueError: the LoRA layers are not those of the model.
    """
    told = json.loads((folder / BASE).read_text(encoding="utf-8"))
    place: dict[str, Any] = {"pretrained_model_name_or_path": folder / told["subfolder"]}
    if told["id"]:
        place = {
            "pretrained_model_name_or_path": told["id"],
            "subfolder": told["subfolder"],
            "revision": told["revision"],
        }
    kind = getattr(import_module(told["module"]), told["class"])
    key = "dtype" if told["module"].startswith("transformers") else "torch_dtype"
    model = kind.from_pretrained(**place, **told["options"], **{key: dtype or torch.float32})
    model = model.get_submodule(told["part"])
    if (folder / LORA).is_dir():
        put_lora(model, folder / LORA)
    return model.eval()


def put_lora(model: torch.nn.Module, folder: Path) -> None:
    """Put the LoRA layers of a folder in PEFT's layout into a model, in float32.

    Raises:
        ValueError: they are not those of the model.
    """
    peft = import_module("peft")  # diffusers asks for all that a file imports, wherever it does

    kept = load_file(folder / "adapter_model.safetensors")
    state = {name.removeprefix("base_model.model."): tensor for name, tensor in kept.items()}
    peft.inject_adapter_in_model(peft.LoraConfig.from_pretrained(str(folder)), model)
    told = peft.set_peft_model_state_dict(model, state)
    layers = [p for name, p in model.named_parameters() if "lora_" in name]
    if told.unexpected_keys or len(layers) != len(state):
        raise ValueError(
            f"the LoRA layers in '{folder}' are not those of the model: it has {len(layers)} "
            f"weights for {len(state)} (has the base model moved or changed?)"
        )
    for parameter in layers:
        parameter.data = parameter.data.float()


class Base(ModelMixin, ConfigMixin):
    """A component that is loaded from where it was published."""

    config_name = BASE

    @classmethod
    def from_pretrained(cls, folder: str, torch_dtype: Any = None, **_options: Any) -> Any:
        """The model itself, an instance of its own class."""
        return load_base(Path(folder), torch_dtype)


ADAPTERS = {
    "feedforward": FeedForwardAdapter,
    "linear": LinearAdapter,
    "refiner": RefinerAdapter,
    "resampler": ResamplerAdapter,
}


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
