"""What every language model can do: cut prompts into tokens and give a hidden state for each.

A family says only how it differs: the transformers class that loads it, where LoRA goes (the
published targets are the four projections of every attention layer), how many tokens it can
read, and what to pad with.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lavi_bridge.config import LoRA, Quantize
from lavi_bridge.device import to_device
from lavi_bridge.errors import BridgeError, in_a_line
from lavi_bridge.locate import Place
from lavi_bridge.output import whole
from lavi_bridge.registry import Registry
from lavi_bridge.weights import Fingerprint, fingerprint, of_any_variant

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

    model: Any  # a module whose class is known only when it is loaded

    def __init__(self, model: nn.Module, tokenizer: Any, place: Place) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tokenizer = tokenizer
        self.place = place
        self.lora: LoRA | None = None
        if tokenizer is not None:
            choose_pad_token(tokenizer, self.pads, self.embeddings, place)

    @classmethod
    def load(cls, place: Place, *, dtype: torch.dtype, quantize: Quantize = "none",
             device: torch.device | None = None,
             trust_remote_code: bool = False) -> Self:  # fmt: skip
        """Load model and tokenizer; `place` holds a checkpoint in transformers' layout.

        Quantised weights are made on `device` layer by layer: the whole model is never there.
        """
        if dtype == torch.float16 and not cls.float16_safe:
            raise BridgeError(f"'{place.id}' overflows in float16; use bfloat16 or float32")
        try:
            with _quiet():
                model, report = of_any_variant(
                    cls._model_class().from_pretrained,
                    **place.pretrained(), dtype=dtype, output_loading_info=True,
                    trust_remote_code=trust_remote_code,
                    **cls.model_options, **quantized(quantize, dtype, device),
                )  # fmt: skip
        except Exception as error:  # the libraries raise many types; all mean this
            raise cannot_load(
                f"language model '{place.id}'", error, trusted=trust_remote_code
            ) from error
        # a pooler sits behind the hidden states and is not used
        if missing := sorted(key for key in report["missing_keys"] if "pooler" not in key):
            raise BridgeError(
                f"'{place.id}' lacks {len(missing)} of the model's weights, such as '{missing[0]}'"
            )
        if quantize != "none":
            _keep_trainable(model)
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
        try:
            config = config_class.from_pretrained(**place.pretrained(), **trust)
            with torch.device("meta"):
                model = build(config, **options)
        except Exception as error:  # the libraries raise many types; all mean this
            raise cannot_load(
                f"language model '{place.id}'", error, trusted=trust_remote_code
            ) from error
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
        config = self.place.file("config.json")
        assert config is not None  # it was loaded from there
        return fingerprint(config.parent)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.hidden(input_ids, attention_mask)

    def hidden(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids (batch, tokens) -> last hidden states (batch, tokens, width).

        Without a mask every token is read, padding too: as published for the U-Nets.
        """
        mask: Any = None if attention_mask is None else self._mask(attention_mask)
        output = self.model(input_ids=to_device(input_ids, self.device), attention_mask=mask)
        return output.last_hidden_state

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
        ids[empty, 0] = self._first_token()
        mask[empty, 0] = 1
        highest = [int(ids.max())] if len(ids) else []
        if reason := unknown_token(highest, self.tokenizer, self.embeddings, self.place):
            raise BridgeError(reason)
        longest, cut = int(mask.sum(1).max()), 0
        if longest == length:
            full = [p for p, row in zip(prompts, mask, strict=True) if row.all()]
            lengths = [len(row) for row in self.tokenizer(full, verbose=False)["input_ids"]]
            longest, cut = max(lengths), sum(n > length for n in lengths)
        return Tokens(ids, mask, longest, cut)

    def spans(self, prompts: Sequence[str], length: int) -> list[list[tuple[int, int]]]:
        """First and last + 1 character of each token of `tokenize`, without blanks at its ends.

        (0, 0) for what covers no character: marks such as a start token, and padding.

        Raises:
            BridgeError: the tokenizer cannot say (it is one without offsets).
        """
        if not self.tokenizer.is_fast:
            raise BridgeError(f"the tokenizer of '{self.place.id}' gives no character offsets")
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

    @contextmanager
    def whole_gelu(self) -> Iterator[None]:
        """Inside, GELU by its tanh is one operation and not eight: the same but for rounding."""
        from transformers.activations import NewGELUActivation

        found = [
            (module, name, child)
            for module in self.model.modules()
            for name, child in module.named_children()
            if type(child) is NewGELUActivation
        ]
        for module, name, _ in found:
            setattr(module, name, nn.GELU(approximate="tanh"))
        try:
            yield
        finally:
            for module, name, child in found:
                setattr(module, name, child)

    def _first_token(self) -> int:
        tok = self.tokenizer
        ids = (tok.bos_token_id, tok.eos_token_id, tok.pad_token_id)
        return next(i for i in ids if i is not None and i < (self.embeddings or i + 1))


def choose_pad_token(tokenizer: Any, kinds: Sequence[str], embeddings: int | None,
                     place: Place) -> None:  # fmt: skip
    """Pad with the tokenizer's own token, or the next best that the model has an embedding of.

    Args:
        kinds: special tokens to pad with, best first, where it names none.

    Raises:
        BridgeError: there is none.
    """
    vocabulary = tokenizer.get_vocab()
    unnamed = [token for token in ("[PAD]", "<pad>") if token in vocabulary]
    special = [getattr(tokenizer, f"{kind}_token") for kind in kinds]
    candidates = [t for t in (tokenizer.pad_token, *unnamed, *special) if t is not None]
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in candidates}
    known = [token for token, index in ids.items() if embeddings is None or index < embeddings]
    if not known:
        beyond = [f"{token} is {index} of {embeddings} embeddings" for token, index in ids.items()]
        raise BridgeError(
            f"the tokenizer of '{place.id}' has no token to pad with"
            f"{' (' + ', '.join(beyond) + ')' if beyond else ''}: "
            "set pad_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token != known[0]:
        tokenizer.pad_token = known[0]


def unknown_token(ids: Sequence[int], tokenizer: Any, embeddings: int | None,
                  place: Place) -> str | None:  # fmt: skip
    """What is wrong with the ids of a text, if the model would look one up beyond its table."""
    highest = max(ids, default=0)
    if embeddings is None or highest < embeddings:
        return None
    return (
        f"a text has the token {tokenizer.convert_ids_to_tokens(highest)!r}, number {highest} of "
        f"the tokenizer, but '{place.id}' has {embeddings} embeddings, numbered from 0: take the "
        "token out, or the tokenizer that the model was trained with"
    )


def cannot_load(what: str, error: Exception, *, trusted: bool = False) -> BridgeError:
    """The one line about what the libraries do not load."""
    reason = in_a_line(error)
    if "trust_remote_code" in str(error) and not trusted:
        reason = (
            "it comes with code of its own, which runs only where you say so: read it, then give "
            "--trust-remote-code (in Python trust_remote_code=True)"
        )
    return BridgeError(f"cannot load {what}: {reason}")


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """A span without blanks at its ends; pieces such as `▁red` count theirs in."""
    inside = text[start:stop]
    start += len(inside) - len(inside.lstrip())
    stop = start + len(inside.strip())
    return (start, stop) if stop > start else (0, 0)


def load_language(place: Place, *, dtype: torch.dtype | None = None, quantize: Quantize = "none",
                  device: torch.device | None = None,
                  trust_remote_code: bool = False) -> Language:  # fmt: skip
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
    model_type = place.json("config.json").get("model_type")
    if not isinstance(model_type, str):
        raise BridgeError(f"the config.json of '{place.id}' names no model_type")
    family = LANGUAGES[model_type if model_type in LANGUAGES else "default"]
    if dtype is None:
        return family.outline(place, trust_remote_code=trust_remote_code)
    return family.load(
        place, dtype=dtype, quantize=quantize, device=device, trust_remote_code=trust_remote_code
    )


def quantized(how: Quantize, dtype: torch.dtype, device: torch.device | None) -> dict[str, Any]:
    """Arguments of `from_pretrained` that hold linear layers in 4 or 8 bits (bitsandbytes).

    NF4: 4-bit NormalFloat with quantised scales (QLoRA, arXiv 2305.14314). int8: LLM.int8(), in
    which outliers stay as they are (arXiv 2208.07339).

    Raises:
        BridgeError: bitsandbytes is not installed.
    """
    if how == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BridgeError(
            f"'quantize' {how} needs bitsandbytes: pip install 'lavi-bridge[quantize]'"
        )
    from transformers import BitsAndBytesConfig

    if how == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return {"quantization_config": config, "device_map": {"": device or torch.device("cpu")}}


def _keep_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on a CPU: what it repacks has no gradient."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


TOKENIZER_FILES = (
    "tokenizer_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)


def load_tokenizer(place: Place, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer in the folder, or beside it, as in a pipeline (text_encoder_2, tokenizer_2).

    It cuts long texts at their end, whatever its files say.
    """
    from transformers import AutoTokenizer

    if not any(place.file(name) for name in TOKENIZER_FILES):
        number = Path(place.subfolder or place.root).name.partition("text_encoder")[2]
        beside = place.beside(f"tokenizer{number}")
        place = beside if any(beside.file(name) for name in TOKENIZER_FILES) else place
    source = place.pretrained()
    if place.subfolder and not place.local:
        # transformers does not find a tokenizer in a subfolder of the Hub's cache by itself
        fetched = [path for name in TOKENIZER_FILES if (path := place.file(name))]
        source = {"pretrained_model_name_or_path": fetched[0].parent} if fetched else source
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=trust_remote_code)
    except Exception as error:  # many types again
        raise cannot_load(
            f"the tokenizer of '{place.id}'", error, trusted=trust_remote_code
        ) from error
    tokenizer.truncation_side = "right"
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the report on weights that a checkpoint has and we leave, such as a head."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
