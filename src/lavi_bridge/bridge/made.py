"""The ways to make a bridge: from two models, from a folder, from an image model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch

from lavi_bridge.bridge import folder as on_disk
from lavi_bridge.bridge import interpolation, published
from lavi_bridge.bridge import parts as joining
from lavi_bridge.bridge.joined import Joined
from lavi_bridge.bridge.parts import Parts
from lavi_bridge.config import Quantize
from lavi_bridge.languages.asked import Asked
from lavi_bridge.running.device import choose_device, choose_dtype


class Made(Joined):
    """A joined module with its constructors by name; `Bridge` adds what it does."""

    @classmethod
    def connect(
        cls,
        language: str | Path,
        vision: str | Path,
        *,
        adapter: str = "feedforward",
        adapter_parameters: int | None = None,
        rank: int = 32,
        language_rank: int | None = None,
        vision_rank: int | None = None,
        dropout: float = 0.1,
        dtype: str | torch.dtype | None = None,
        quantize: Quantize = "none",
        quantize_vision: Quantize = "none",
        tokens: int | None = None,
        language_layers: str = "all",
        layers: str | int = "last",
        template: str | None = None,
        device: str | torch.device | None = None,
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> Self:
        """Join two pre-trained models by a fresh adapter and fresh LoRA.

        Args:
            language: Hub id (`owner/name[/subfolder][@revision]`), folder, or `zoo:NAME`.
            vision: the same, of a pipeline in diffusers' layout.
            adapter: name of a registered adapter.
            adapter_parameters: that it may have: it is as wide inside as fits; its usual size by
                default.
            rank: LoRA rank on both models; `language_rank` and `vision_rank` set one alone, and
                0 leaves a model untouched.
            dropout: inside the adapter and on the output of every LoRA layer (paper: 0.1).
            dtype: precision of the frozen models: bfloat16 on a GPU, float32 elsewhere by default.
            quantize: hold the language model in 8 or 4 bits (`int8`, `nf4`) by bitsandbytes.
            quantize_vision: the same for the vision model's blocks; convolutions stay whole.
            tokens: that a prompt may have; the vision model's own number by default.
            language_layers: which of the language model's get LoRA: `all`, or `last:K`.
            layers: which of its layers are read: `last`, `penultimate`, a number (0: the
                embeddings), `mean`, `mix` or `stack:K`.
            template: a text before every prompt, not handed on, or `chat`: the tokenizer's own.
            device: where to put it all; a GPU by default, where there is one.
            seed: draws the adapter's and the LoRA layers' first weights.
            trust_remote_code: run code that comes with the language model.

        Raises:
            BridgeError: a model cannot be found or loaded, or LoRA does not fit it.
        """
        device = choose_device(device)
        ranks = (
            rank if language_rank is None else language_rank,
            rank if vision_rank is None else vision_rank,
        )
        parts = joining.connect(
            language,
            vision,
            adapter=adapter,
            parameters=adapter_parameters,
            ranks=ranks,
            dropout=dropout,
            dtype=dtype,
            quantize=quantize,
            quantize_vision=quantize_vision,
            device=device,
            seed=seed,
            tokens=tokens,
            layers=language_layers,
            asked=Asked(layers, template),
            trust_remote_code=trust_remote_code,
        )
        return cls._of(parts).to(device)

    @classmethod
    def outline(
        cls,
        language: str | Path,
        vision: str | Path,
        *,
        adapter: str = "feedforward",
        adapter_parameters: int | None = None,
        language_rank: int = 32,
        vision_rank: int = 32,
        tokens: int | None = None,
        language_layers: str = "all",
        layers: str | int = "last",
        template: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """The same bridge without weights, on the meta device: only configs are read."""
        return cls._of(
            joining.outline(
                language,
                vision,
                adapter=adapter,
                parameters=adapter_parameters,
                ranks=(language_rank, vision_rank),
                tokens=tokens,
                layers=language_layers,
                asked=Asked(layers, template),
                trust_remote_code=trust_remote_code,
            )
        )

    @classmethod
    def own(
        cls,
        vision: str | Path,
        *,
        dtype: str | torch.dtype | None = None,
        quantize_vision: Quantize = "none",
        offload: bool = False,
        device: str | torch.device | None = None,
    ) -> Self:
        """The vision model with the text encoder it came with: the baseline of comparisons.

        Raises:
            BridgeError: the folder has no text encoder of its own.
        """
        device = choose_device(device)
        precision = choose_dtype(dtype, device)
        parts = joining.own_parts(
            vision, dtype=precision, quantize_vision=quantize_vision, device=device
        )
        return cls._of(parts).offload(device) if offload else cls._of(parts).to(device)

    @classmethod
    def from_published(
        cls,
        folder: str | Path,
        *,
        language: str | Path,
        vision: str | Path,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Read a checkpoint of the published code (`lora_vis.pt`, `lora_text.pt`, `adapter/`).

        Raises:
            BridgeError: a file is missing, or its layers, rank or shapes do not fit the models.
        """
        device = choose_device(device)
        parts = published.read(
            folder,
            language=language,
            vision=vision,
            dtype=choose_dtype(dtype, device),
            trust_remote_code=trust_remote_code,
        )
        return cls._of(parts).to(device)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        language: str | Path | None = None,
        vision: str | Path | None = None,
        dtype: str | torch.dtype | None = None,
        quantize: Quantize = "none",
        quantize_vision: Quantize = "none",
        offload: bool = False,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a saved bridge from a folder or the Hub; it knows its own base models.

        Args:
            folder: what `save` wrote, or a Hub id.
            language, vision: where the base models are now, if they have moved.
            quantize, quantize_vision: hold them in 8 or 4 bits, however the bridge was trained.
            offload: see `Bridge.offload`.
            trust_remote_code: run code that comes with the language model; a bridge never says so
                by itself.

        Raises:
            BridgeError: a file is missing or damaged, or the base models are not the ones that
                the bridge was trained on.
        """
        device = choose_device(device)
        parts, summary = on_disk.read(
            folder,
            language=language,
            vision=vision,
            dtype=choose_dtype(dtype, device),
            quantize=quantize,
            quantize_vision=quantize_vision,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        bridge = cls._of(parts)
        bridge.training_summary = summary
        return bridge.offload(device) if offload else bridge.to(device)

    @classmethod
    def interpolated(
        cls,
        a: str | Path,
        b: str | Path,
        t: float,
        *,
        language: str | Path | None = None,
        vision: str | Path | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """The bridge between two saved ones of one pair: a at t = 0, b at 1.

        Linear in the adapter's weights and in what LoRA adds, exactly; its LoRA has the ranks of
        both together. The options are those of `load`.

        Raises:
            BridgeError: as `load` does; or t is outside of 0 to 1, the two have other base models,
                adapters, lengths or layers with LoRA, or the rank is above that of every layer.
        """
        device = choose_device(device)
        parts, summary = interpolation.read(
            a,
            b,
            t,
            language=language,
            vision=vision,
            dtype=choose_dtype(dtype, device),
            trust_remote_code=trust_remote_code,
        )
        bridge = cls._of(parts)
        bridge.training_summary = summary
        return bridge.to(device)

    @classmethod
    def _of(cls, parts: Parts) -> Self:
        return cls(parts.language, parts.vision, parts.adapter, parts.limit, parts.own)
