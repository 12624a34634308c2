"""The three parts of a bridge, and how two models become them.

What makes, reads or writes a bridge handles these; `Bridge`, which learns and draws, stands above.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lavi_bridge.adapters import ADAPTERS, Adapter
from lavi_bridge.bridge import lora
from lavi_bridge.bridge.own import load_own, own_length
from lavi_bridge.config import LoRA, Quantize
from lavi_bridge.errors import BridgeError
from lavi_bridge.files.atomic import raw_bytes
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import Language, load_language
from lavi_bridge.languages.asked import Asked, record
from lavi_bridge.languages.layers import ALL, lora_targets
from lavi_bridge.running.device import choose_dtype
from lavi_bridge.visions import Vision, load_vision

Side = Language | Vision
"""Either model of a bridge."""


@dataclass(frozen=True)
class Parts:
    """A language model, a vision model, and the adapter between them.

    Raises:
        BridgeError: the adapter's widths are not those of the models.
    """

    language: Language
    vision: Vision
    adapter: Adapter
    limit: int | None = None
    """Tokens that a prompt may have, where that was asked for; the vision model's own otherwise."""
    own: Language | None = None
    """The text encoders that the vision model came with, where the adapter reads them, too."""

    def __post_init__(self) -> None:
        if self.limit is not None:
            _check_limit(self.limit, self.language, self.vision)
        reading = self.language.reading
        mixed = 0 if reading is None else reading.mixed
        if self.adapter.mixed != mixed:
            raise BridgeError(
                f"the adapter mixes {self.adapter.mixed} layers, but {mixed} are to be mixed"
            )
        widths = self.adapter.width_in, self.adapter.width_out
        needed = self.language.handed_width // max(1, mixed), self.vision.text_width
        if widths != needed:
            raise BridgeError(
                f"the adapter maps {widths[0]} to {widths[1]}, but these models "
                f"need {needed[0]} to {needed[1]}"
            )
        if self.adapter.width_pooled != self.vision.pooled_width:
            raise BridgeError(
                f"the adapter gives a pooled vector of width {self.adapter.width_pooled}, but "
                f"'{self.vision.place.id}' reads one of {self.vision.pooled_width}"
            )
        if self.adapter.needs_own:
            self._check_own()
        if self.adapter.widths_more != self.vision.more_widths:
            raise BridgeError(
                f"the adapter gives further sequences of widths {list(self.adapter.widths_more)}, "
                f"but '{self.vision.place.id}' reads {list(self.vision.more_widths)}"
            )

    def _check_own(self) -> None:
        vision, own, kind = self.vision, self.own, self.adapter.kind
        if own is None:
            raise BridgeError(f"the '{kind}' adapter needs the own encoder of '{vision.place.id}'")
        if own.width != vision.text_width:
            raise BridgeError(
                f"'{vision.place.id}' reads text of width {vision.text_width}; its own encoder "
                f"gives {own.width}"
            )
        whole = own_length(own, vision) + self.tokens
        if self.adapter.appends and vision.max_tokens is not None and whole > vision.max_tokens:
            raise BridgeError(
                f"'{vision.place.id}' reads {vision.max_tokens} tokens at most, not "
                f"{own_length(own, vision)} of its own encoder and {self.tokens} more: take fewer "
                "(--tokens), or the 'fusion' adapter"
            )

    @property
    def sides(self) -> dict[str, Side]:
        """Both models by name, as they are called in a bridge folder."""
        return {"language": self.language, "vision": self.vision}

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """The trained parameters by part: adapter, language (LoRA), vision (LoRA)."""
        return {
            "adapter": list(self.adapter.parameters()),
            "language": lora.parameters(self.language.trunk),
            "vision": lora.parameters(self.vision.trunk),
        }

    @property
    def tokens(self) -> int:
        """Tokens of a prompt that are read at most; what the language model can read, if fewer."""
        wanted = self.limit or self.vision.tokens
        return min(wanted, self.language.room or wanted)

    @property
    def padding(self) -> int:
        """Tokens up to which padding is read, where it is not masked: as the vision model's own
        encoder has it. A longer prompt is read to its end, without any."""
        return min(self.vision.tokens, self.tokens)

    @property
    def id(self) -> str:
        """12 hex digits that identify base models and trained weights; they go into every PNG."""
        bases = self.language.fingerprint + self.vision.fingerprint
        if self.own is not None:
            bases += self.own.fingerprint
        digest = hashlib.sha256(bases.encode())
        if asked := record(self.language):
            digest.update(json.dumps(asked, sort_keys=True).encode())
        for part in self.trained().values():
            for parameter in part:
                digest.update(raw_bytes(parameter))
        return digest.hexdigest()[:12]


def connect(
    language: str | Path,
    vision: str | Path,
    *,
    adapter: str,
    parameters: int | None,
    ranks: tuple[int, int],
    dropout: float,
    dtype: str | torch.dtype | None,
    quantize: Quantize,
    quantize_vision: Quantize,
    device: torch.device,
    seed: int,
    tokens: int | None,
    layers: str,
    asked: Asked,
    trust_remote_code: bool,
) -> Parts:
    """Join two pre-trained models by a fresh adapter and fresh LoRA; see `Bridge.connect`."""
    precision = choose_dtype(dtype, device)
    text_model = load_language(
        locate(language),
        dtype=precision,
        quantize=quantize,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    asked.of(text_model)
    return join(
        text_model,
        load_vision(locate(vision), dtype=precision, quantize=quantize_vision, device=device),
        adapter=adapter,
        parameters=parameters,
        dtype=precision,
        ranks=ranks,
        dropout=dropout,
        seed=seed,
        tokens=tokens,
        layers=layers,
    )


def outline(
    language: str | Path,
    vision: str | Path,
    *,
    adapter: str,
    parameters: int | None,
    ranks: tuple[int, int],
    tokens: int | None,
    layers: str,
    asked: Asked,
    trust_remote_code: bool,
) -> Parts:
    """Join two models without weights, on the meta device: only configs are read."""
    text_model = load_language(locate(language), trust_remote_code=trust_remote_code)
    asked.of(text_model, trust_remote_code=trust_remote_code)
    image_model = load_vision(locate(vision))
    with torch.device("meta"):
        return join(
            text_model,
            image_model,
            adapter=adapter,
            parameters=parameters,
            dtype=None,
            ranks=ranks,
            dropout=0.0,
            seed=0,
            tokens=tokens,
            layers=layers,
        )


def own_parts(
    vision: str | Path, *, dtype: torch.dtype, quantize_vision: Quantize, device: torch.device
) -> Parts:
    """Join a vision model to the text encoder it came with; nothing of it is trained.

    Raises:
        BridgeError: its folder has no text encoder.
    """
    image_model = load_vision(locate(vision), dtype=dtype, quantize=quantize_vision, device=device)
    language = load_own(image_model, dtype=dtype)
    identity = ADAPTERS["identity"](
        language.width, image_model.text_width, pooled=image_model.pooled_width
    )
    return Parts(language, image_model, identity)


def join(
    language: Language,
    vision: Vision,
    *,
    adapter: str,
    ranks: tuple[int, int],
    dropout: float,
    seed: int,
    dtype: torch.dtype | None,
    parameters: int | None = None,
    tokens: int | None = None,
    layers: str = ALL,
) -> Parts:
    """Put a fresh adapter between two models and fresh LoRA into them, all drawn from `seed`.

    Args:
        ranks: of the language model's LoRA and the vision model's; 0 leaves a model untouched.
        dtype: of the own encoders, where the adapter reads them; None without weights.
        parameters: that the adapter may have; its usual size by default.
        tokens: that a prompt may have; the vision model's own number where not given.
        layers: of the language model that get LoRA: `all`, or `last:K`.

    Raises:
        BridgeError: the dropout is no fraction, LoRA does not fit a model, or a model cannot read
            so many tokens.
    """
    if not 0 <= dropout < 1:
        raise BridgeError(f"dropout is a fraction below 1, not {dropout}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        mixed = 0 if language.reading is None else language.reading.mixed
        fresh = ADAPTERS[adapter].fresh(
            language.handed_width // max(1, mixed),
            vision.text_width,
            dropout=dropout,
            pooled=vision.pooled_width,
            more=vision.more_widths,
            parameters=parameters,
        )
        fresh.mix_layers(mixed)
        own = load_own(vision, dtype=dtype) if fresh.needs_own else None
        parts = Parts(language, vision, fresh, tokens, own)
        targets = lora_targets(language, layers), vision.lora_targets
        for side, rank, pattern in zip(parts.sides.values(), ranks, targets, strict=True):
            inject(side, LoRA(rank if pattern else 0, pattern, dropout), seed=seed)
    return parts


def inject(side: Side, spec: LoRA, *, seed: int = 0) -> int:
    """Inject LoRA into one side of a bridge and note it there; rank 0 does nothing."""
    if spec.rank == 0:
        return 0
    count = lora.inject(side.trunk, spec, seed=seed, name=f"'{side.place.id}'")
    side.lora = spec
    return count


def _check_limit(limit: int, language: Language, vision: Vision) -> None:
    if limit < 1:
        raise BridgeError(f"a prompt has at least 1 token; tokens cannot be {limit}")
    if limit > vision.tokens and vision.max_tokens is not None and limit > vision.max_tokens:
        raise BridgeError(
            f"'{vision.place.id}' reads {vision.max_tokens} tokens at most, not {limit}"
        )
    if language.room is not None and limit > language.room:
        beside = f" beside the template's {len(language.template)}" if language.template else ""
        raise BridgeError(
            f"'{language.place.id}' reads {language.room} tokens at most{beside}, not {limit}"
        )
