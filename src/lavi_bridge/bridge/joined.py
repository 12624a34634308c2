"""The parts of a bridge as one module: saved, put on devices, and asked for text features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lavi_bridge.adapters import Adapter
from lavi_bridge.bridge import folder as on_disk
from lavi_bridge.bridge import stacked
from lavi_bridge.bridge.own import OwnEncoders, own_text
from lavi_bridge.bridge.parts import Parts
from lavi_bridge.bridge.stacked import Stacked
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import at_home
from lavi_bridge.languages import Language
from lavi_bridge.languages.base import Tokens
from lavi_bridge.running.device import choose_device, stays, to_device
from lavi_bridge.running.widened import widen
from lavi_bridge.text import Text
from lavi_bridge.visions import Vision


class Joined(nn.Module):
    """A language model, a vision model and an adapter as one module.

    `Made` adds the ways to make one, `Bridge` what the three do together: learn and draw.
    """

    def __init__(
        self,
        language: Language,
        vision: Vision,
        adapter: Adapter,
        tokens: int | None = None,
        own: Language | None = None,
    ) -> None:
        """Take three parts that fit.

        Args:
            tokens: that a prompt may have; the vision model's own number where not given.
            own: the vision model's own text encoders, for adapters that read them, too.

        Raises:
            BridgeError: they do not fit.
        """
        super().__init__()
        Parts(language, vision, adapter, tokens, own)
        self._limit = tokens
        self._away: torch.device | None = None
        self.language = language
        self.vision = vision
        self.adapter = adapter
        self.own_encoders = own if own is None else own.requires_grad_(False)
        self.training_summary: dict[str, Any] = {}
        self.stacked: list[Stacked] = []
        widen(self)
        self.eval()

    def offload(self, device: str | torch.device | None = None) -> Self:
        """Draw on `device` with no more than one model there at a time.

        All live on the CPU and go there in turns: the language model and the adapter while prompts
        are encoded, the backbone while it denoises, the autoencoder while it decodes. What is held
        in 8 or 4 bits stays there. For `generate` and `stream`; everything else runs on the CPU.
        """
        self._away = choose_device(device)
        for module in (*self.readers, self.vision.backbone, self.vision.vae):
            module.to(self._away if stays(module) else "cpu")
        return self

    @property
    def readers(self) -> list[nn.Module]:
        """What reads prompts."""
        own = [] if self.own_encoders is None else [self.own_encoders]
        return [self.language, self.adapter, *own]

    @property
    def answerers(self) -> list[nn.Module]:
        """What is asked at every step of sampling."""
        return [self.vision.backbone, *([self.adapter] if self.adapter.timed else [])]

    def save(self, folder: str | Path) -> None:
        """Write the trained parts and a model card into `folder`, atomically; safetensors only."""
        on_disk.write(self._parts, self.training_summary, at_home(folder))

    def record(self) -> dict[str, Any]:
        """What `bridge.json` says of it: base models, adapter, LoRA, lengths, training."""
        return on_disk.record_of(self._parts, self.training_summary)

    # ---- other people's LoRA

    def load_lora(self, file: str | Path, scale: float = 1.0) -> Stacked:
        """Put somebody's LoRA file for this vision model on top of what there is; see how it went.

        It draws with the bridge's own LoRA and any loaded before, and neither trains nor is saved.

        Args:
            file: a safetensors file with kohya's, PEFT's or diffusers' names, its folder, or a Hub
                id.
            scale: its strength.

        Raises:
            BridgeError: there is no such file, it is no plain LoRA, or something of it does not fit
                the vision model; nothing is loaded then.
        """
        found = stacked.load(self.vision, file, scale, len(self.stacked))
        self.stacked.append(found)
        return found

    def unload_lora(self) -> None:
        """Take all of them away: the bridge is what it was before, bit for bit."""
        stacked.remove(self.vision.backbone, range(len(self.stacked)))
        self.stacked.clear()

    # ---- what trains

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters by part: adapter, language (LoRA), vision (LoRA)."""
        return self._parts.trained()

    @property
    def _parts(self) -> Parts:
        return Parts(self.language, self.vision, self.adapter, self._limit, self.own_encoders)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """All trained parameters, ready for an optimizer."""
        return [parameter for part in self.parts().values() for parameter in part]

    def train(self, mode: bool = True) -> Self:
        """Set the training mode of all but what only ever serves: the autoencoder, and a language
        model without LoRA, whose features then are the same at every step."""
        super().train(mode)
        self.vision.vae.eval()
        if self.own_encoders is not None:
            self.own_encoders.eval()
        self.language.train(mode and self.language.lora is not None)
        return self

    def checkpoint_activations(self) -> None:
        """Compute activations anew in the backward pass of both models instead of keeping them.

        About a third more time for a fraction of the memory; the gradients are the same. A language
        model that cannot (LDMBert, which is small) keeps its own.
        """
        model = self.language.model
        if getattr(model, "supports_gradient_checkpointing", False):
            # its name since transformers 5.23
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.vision.checkpoint_activations()

    @property
    def id(self) -> str:
        """12 hex digits that identify base models and trained weights; they go into every PNG."""
        return self._parts.id

    # ---- text

    @property
    def tokens(self) -> int:
        """Tokens of a prompt that are read at most."""
        return self._parts.tokens

    @property
    def padding(self) -> int:
        """Tokens up to which padding is read, where it is not masked; see `Parts.padding`."""
        return self._parts.padding

    def encode(self, prompts: str | Sequence[str]) -> Text:
        """Prompts -> features that the vision model can read, with its mask policy."""
        return self.adapt(self.features(prompts))

    def features(self, prompts: str | Sequence[str], *, trim: bool | None = None) -> Text:
        """Prompts -> the language model's hidden states (batch, tokens, handed width), their mask.

        Own encoders that are read through their pipeline give a pooled vector, too.

        Args:
            trim: see `read`.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise BridgeError("no prompts to encode")
        if isinstance(self.language, OwnEncoders):
            return self.language.text(prompts)
        ids, mask = self.read(self.language.tokenize(prompts, self.tokens), trim=trim)
        hidden = self.language.hidden(ids, mask)
        text = Text(hidden, None if mask is None else to_device(mask, hidden.device))
        return self.beside_own(text, prompts)

    def beside_own(self, features: Text, prompts: Sequence[str] | None) -> Text:
        """Features with the own encoders' reading of the same prompts, where the adapter wants it.

        Raises:
            BridgeError: it does, and there are no prompts.
        """
        if self.own_encoders is None or features.own is not None:
            return features
        if prompts is None:
            raise BridgeError(f"the '{self.adapter.kind}' adapter needs the captions themselves")
        return replace(features, own=own_text(self.own_encoders, self.vision, list(prompts)))

    def read(self, tokens: Tokens, *, trim: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """What is read of tokenized prompts: ids (batch, length), and a mask or None for all.

        Where the vision model masks padding, the real tokens. Where it does not, padding is read
        up to the length of its own encoder; a longer prompt is read to its end, and the others of
        its batch are as if they were alone.

        Args:
            trim: leave out what no prompt of the batch needs (masked padding to a multiple of 8);
                False: one length for all batches, as compiled models want it. By default only what
                lies beyond the own encoder's length is left out.
        """
        if self.vision.masks:
            trim = trim and self.vision.padding == "masked"  # zeros are read, and counted
            length = min(-(-tokens.longest // 8) * 8, self.tokens) if trim else self.tokens
            return tokens.ids[:, :length], tokens.mask[:, :length]
        if self.tokens == self.padding:
            return tokens.ids, None
        reach = tokens.mask.sum(1, keepdim=True).clamp(min=self.padding)
        if trim is False:
            return tokens.ids, (torch.arange(self.tokens) < reach).long()
        length = int(reach.max())
        mask = (torch.arange(length) < reach).long()
        return tokens.ids[:, :length], None if bool(mask.all()) else mask

    def adapt(self, features: Text) -> Text:
        """The language model's features as the vision model reads them."""
        return self.adapter.prepare(features)
