"""What every adapter is: a small trained network from language features to vision features."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import read_safetensors
from lavi_bridge.files.locate import Place
from lavi_bridge.registry import Registry
from lavi_bridge.text import Text

ADAPTERS: Registry[Adapter] = Registry("adapter")
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
"""The published layout, which is diffusers'."""
WIDEST = 4096
"""The most that a fresh adapter is wide inside: as that of the paper's widest pair, Llama-2-7B with
PixArt. Some of today's models read texts of 15,360 or 30,720 numbers a token, for which a middle
halfway would make 1.1 to 4 billion parameters."""
INNER_STEP = 8
"""Widths inside that are chosen by a number of parameters are multiples of this."""


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
    needs_own: ClassVar[bool] = False
    """Whether it reads the own encoder's condition beside the language model's features."""
    appends: ClassVar[bool] = False
    """Whether its tokens come after all of the own encoder's."""
    per_token: ClassVar[bool] = True
    """Whether it gives one feature for each token."""
    per_own_token: ClassVar[bool] = False
    """Whether it gives one state for each token of the own encoder's reading of the same text."""
    adds: ClassVar[bool] = False
    """Whether what it brings is added to the own encoder's states, `strength` times."""
    pools: ClassVar[bool] = True
    """Whether pooled vector and further sequences are its own, not the own encoder's."""
    linear: ClassVar[bool] = False
    """Whether it is one linear layer and nothing else."""

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

    @property
    def last(self) -> nn.Linear | None:
        """The linear layer that gives the features, where there is one for each token; None
        elsewhere, as nothing says then what each of them should be."""
        return None

    @property
    def capped(self) -> int | None:
        """The width inside, where it is less than usual: of very wide texts; see `WIDEST`."""
        usual = self.usual_inner(self.width_in, self.width_out)
        return self.inner if self.inner == WIDEST < usual else None

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

    def at(self, text: Text, timesteps: Tensor) -> Text:
        """What is done at every step, to what `prepare` gave."""
        return text

    @contextmanager
    def scaled(self, scale: float) -> Iterator[None]:
        """Multiply what is added to the own encoder's states, while inside: 0 adds nothing.

        Raises:
            BridgeError: the adapter adds nothing to them, and the scale is not 1.
        """
        if scale != 1 and not self.adds:
            raise BridgeError(
                f"adapter_scale cannot be {scale:g}: the '{self.kind}' adapter adds nothing to the "
                "own encoder's states"
            )
        before, self.strength = self.strength, scale
        try:
            yield
        finally:
            self.strength = before

    def save(self, folder: Path) -> None:
        """Write config and weights into `folder`, in the layout of the published adapters."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.config(), indent=2) + "\n", encoding="utf-8")
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    def config(self) -> dict[str, Any]:
        """What `load` needs to make this adapter again; keys beyond the published where needed."""
        config: dict[str, Any] = {
            "kind": self.kind,
            "in_dim": self.width_in,
            "out_dim": self.width_out,
            "dropout": self.dropout,
        }
        if self.width_pooled:
            config["pooled_dim"] = self.width_pooled
        if self.widths_more:
            config["more_dims"] = list(self.widths_more)
        if self.inner != self.usual_inner(self.width_in, self.width_out):
            config["inner_dim"] = self.inner
        if self.mixed:
            config["mixed_layers"] = self.mixed
        return config

    @classmethod
    def usual_inner(cls, width_in: int, width_out: int) -> int:
        """The width inside where nothing else was asked for; 0 for kinds that have none."""
        return 0

    @classmethod
    def fresh(
        cls,
        width_in: int,
        width_out: int,
        *,
        dropout: float = 0.0,
        pooled: int = 0,
        more: Sequence[int] = (),
        parameters: int | None = None,
    ) -> Self:
        """Make an adapter to train; its width inside is `WIDEST` at most.

        Args:
            parameters: that it may have; it is as wide inside as fits.

        Raises:
            BridgeError: it cannot have so few, or has a size of its own.
        """
        usual = cls.usual_inner(width_in, width_out)

        def make(inner: int) -> Any:
            return cls(width_in, width_out, dropout=dropout, pooled=pooled, more=more, inner=inner)

        if parameters is None:
            return make(min(usual, WIDEST))
        if not usual:
            raise BridgeError(
                f"the '{cls.kind}' adapter has one size: --adapter-parameters needs another"
            )

        def count(inner: int) -> int:
            with torch.device("meta"):
                return sum(parameter.numel() for parameter in make(inner).parameters())

        steps = range(INNER_STEP, 8 * WIDEST + 1, INNER_STEP)
        fitting = bisect_right(steps, parameters, key=count)
        if not fitting:
            raise BridgeError(
                f"a '{cls.kind}' adapter from {width_in} to {width_out} has at least "
                f"{count(INNER_STEP):,} parameters, not {parameters:,}"
            )
        return make(steps[fitting - 1])

    @staticmethod
    def load(place: Place, *, dropout: float | None = None) -> Adapter:
        """Read an adapter: ours, or a published one (which names no kind: it is feed-forward).

        Raises:
            BridgeError: a file is missing or damaged, or the shapes are not the config's.
        """
        config = place.json(CONFIG)
        try:
            widths = config["in_dim"], config["out_dim"]
        except KeyError as error:
            raise BridgeError(f"the adapter's {CONFIG} in '{place.id}' lacks {error}") from None
        kept = config.get("dropout", 0.1) if dropout is None else dropout
        with torch.device("meta"):  # no first weights are drawn, the file's take their place
            adapter = ADAPTERS[config.get("kind", "feedforward")](
                *widths,
                dropout=kept,
                pooled=config.get("pooled_dim", 0),
                more=config.get("more_dims", ()),
                inner=config.get("inner_dim"),
            )
            adapter.mix_layers(config.get("mixed_layers", 0))
        adapter.load_weights(place)
        return adapter

    def load_weights(self, place: Place) -> Self:
        """Fill this adapter with the weights at `place`, checking every name and shape."""
        path = place.file(WEIGHTS)
        if path is None:
            raise BridgeError(f"the adapter in '{place.id}' has no {WEIGHTS}")
        state = read_safetensors(path)
        own = self.state_dict()
        if missing := sorted(own.keys() ^ state.keys()):
            raise BridgeError(f"{path}: not a '{self.kind}' adapter: '{missing[0]}' does not match")
        for name, tensor in state.items():
            if tensor.shape != own[name].shape:
                raise BridgeError(
                    f"{path}: '{name}' is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
                )
        self.load_state_dict({name: t.float() for name, t in state.items()}, assign=True)
        return self
