"""What every adapter is: a small trained network from language features to vision features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

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


class Adapter(nn.Module):
    """Maps hidden states (batch, tokens, width_in) -> (batch, tokens', width_out), in float32.

    Args:
        pooled: width of the one vector a prompt that some vision models read beside its tokens; 0
            where there is none.
        more: widths of further sequences that some read; each has an adapter of the same kind.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        dropout: float = 0.0,
        pooled: int = 0,
        more: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.width_in, self.width_out, self.dropout = width_in, width_out, dropout
        self.width_pooled, self.widths_more = pooled, tuple(more)
        if pooled:
            self.pool = nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, pooled))
        if more:
            self.further = nn.ModuleList(type(self)(width_in, w, dropout=dropout) for w in more)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map language features of any precision to float32 vision features."""
        raise NotImplementedError

    def read(self, features: Text) -> Text:
        """Language features as the vision model reads them: its tokens, a pooled vector of the mean
        of all tokens that are read, and further sequences, where it asks for them."""
        hidden = features.hidden
        read, pooled = self(hidden), None
        if self.width_pooled:
            every = torch.ones(hidden.shape[:2], device=hidden.device)
            mask = every if features.mask is None else features.mask
            weights = mask.float().unsqueeze(-1)  # (batch, tokens, 1)
            mean = (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
            pooled = self.pool(mean)
        further = self.further if self.widths_more else ()
        more = tuple(Text(one(hidden), features.mask) for one in further)
        return Text(read, features.mask, pooled, more=more)

    def save(self, folder: Path) -> None:
        """Write config and weights into `folder`, in the layout of the published adapters."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
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
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

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
            )
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
