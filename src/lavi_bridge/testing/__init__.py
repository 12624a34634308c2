"""Tiny random models of every family in the real folder layouts, for our tests and for yours.

`make_language`, `make_vision` and `make_judge` write a folder that loads through the very same code
as a Hub checkpoint. A new family adds one small config here and is then part of the battery.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lavi_bridge.testing.encoders import CHAT, ENCODERS, SETTINGS
from lavi_bridge.testing.judges import JUDGES, make_judge
from lavi_bridge.testing.languages import LANGUAGES
from lavi_bridge.testing.visions import VISIONS

__all__ = [
    "ENCODERS",
    "JUDGES",
    "LANGUAGES",
    "VISIONS",
    "add_encoders",
    "make_judge",
    "make_language",
    "make_tokenizer",
    "make_vision",
    "write_index",
]


def make_language(folder: Path, model_type: str, *, seed: int = 0) -> Path:
    """Write a tiny random language model with a byte-level tokenizer into `folder`."""
    import transformers

    class_name, settings = LANGUAGES[model_type]
    if class_name == "LDMBertModel":  # the one that comes with diffusers
        from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion as diffusers_ldm

        kind, config = diffusers_ldm.LDMBertModel, diffusers_ldm.LDMBertConfig(**settings)
    else:
        kind = getattr(transformers, class_name)
        config = transformers.AutoConfig.for_model(model_type, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_vision(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write a tiny random image model in its pipeline's layout, without a text encoder."""
    import diffusers

    _, parts, (scheduler, noise) = VISIONS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part, (class_name, settings) in parts.items():
            model = getattr(diffusers, class_name)(**settings)
            for parameter in model.parameters():  # some classes start at zero
                if parameter.ndim > 1 and not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.02)
            for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean.normal_()  # 0 and 1 would hide that they are read
                norm.running_var.uniform_(0.5, 4)
            model.save_pretrained(folder / part)
    getattr(diffusers, scheduler)(**noise).save_pretrained(folder / "scheduler")
    write_index(folder, name)
    return folder


def add_encoders(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write tiny random text encoders of its own, with tokenizers, into an image model's folder."""
    import diffusers
    import transformers

    getattr(diffusers, VISIONS[name][0])  # brings classes of encoders, in some cases
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for part, (class_name, settings) in ENCODERS[name].items():
        kind = getattr(transformers, class_name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind(kind.config_class(**settings)).save_pretrained(folder / part)
        tokenizer = part.replace("text_encoder", "tokenizer")
        longest = 77 if class_name.startswith("CLIP") else 512
        make_tokenizer(folder / tokenizer, longest=longest, chat=CHAT)
        index[part] = ["transformers", class_name]
        index[tokenizer] = ["transformers", "PreTrainedTokenizerFast"]
    index |= SETTINGS.get(name, {})
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return folder


def write_index(folder: Path, name: str) -> None:
    """Write the model_index.json of a pipeline folder."""
    pipeline, parts, (scheduler, _) = VISIONS[name]
    index: dict[str, Any] = {"_class_name": pipeline, "scheduler": ["diffusers", scheduler]}
    index |= {part: ["diffusers", class_name] for part, (class_name, _) in parts.items()}
    index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    if not any("sample_size" in config for name, (_, config) in parts.items() if name != "vae"):
        index["default_sample_size"] = 64
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def make_tokenizer(folder: Path, *, longest: int | None = None, chat: str | None = None) -> None:
    """Write a byte-level tokenizer: every prompt has tokens, and every token is known.

    Args:
        longest: tokens that it cuts a prompt to.
        chat: its chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    letters = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    given = {"model_max_length": longest, "chat_template": chat}
    told = {key: value for key, value in given.items() if value is not None}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **told).save_pretrained(folder)
