"""Tiny random models of every family in the real folder layouts, for our tests and for yours.

`make_language` and `make_vision` write a folder that loads through the very same code as a Hub
checkpoint. A new family adds one small config here and is then part of the battery.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_WORDS = {"vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_DECODER = _WORDS | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
_ENCODER = _WORDS | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_T5 = {
    "vocab_size": 300,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
}

_SEES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "image_size": 8,
    "num_attention_heads": 2,
    "patch_size": 2,
}

LANGUAGES: dict[str, tuple[str, dict[str, Any]]] = {
    # model_type: transformers class, config
    "clip_text_model": ("CLIPTextModel", _ENCODER | {"max_position_embeddings": 77}),
    "clip": (
        "CLIPModel",
        {"text_config": _ENCODER | {"max_position_embeddings": 77}, "vision_config": _SEES},
    ),
    "t5": ("T5EncoderModel", _T5),
    "mt5": ("MT5EncoderModel", _T5),
    "umt5": ("UMT5EncoderModel", _T5),
    "llama": ("LlamaForCausalLM", _DECODER),
    "mistral": ("MistralForCausalLM", _DECODER),
    "qwen2": ("Qwen2ForCausalLM", _DECODER),
    "qwen3": ("Qwen3ForCausalLM", _DECODER),
    "gemma": ("GemmaForCausalLM", _DECODER),
    "gemma2": ("Gemma2ForCausalLM", _DECODER),
    "gemma3_text": ("Gemma3ForCausalLM", _DECODER),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {"text_config": _DECODER, "vision_config": _SEES, "mm_tokens_per_image": 4},
    ),
    "phi3": ("Phi3ForCausalLM", _DECODER),
    "bert": ("BertModel", _ENCODER),
    "roberta": ("RobertaModel", _ENCODER | {"max_position_embeddings": 130}),
    "xlm-roberta": ("XLMRobertaModel", _ENCODER | {"max_position_embeddings": 130}),
    "ldmbert": (
        "LDMBertModel",
        {
            "vocab_size": 300,
            "max_position_embeddings": 128,
            "d_model": 32,
            "encoder_layers": 2,
            "encoder_ffn_dim": 48,
            "head_dim": 8,
            "encoder_attention_heads": 4,
            "pad_token_id": 0,
        },
    ),
    "modernbert": ("ModernBertModel", _ENCODER | {"cls_token_id": 1, "sep_token_id": 2}),
    # no family of their own: these take the default one
    "electra": ("ElectraModel", _ENCODER | {"embedding_size": 32}),
    "gpt2": ("GPT2Model", _WORDS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "bart": (
        "BartModel",
        _WORDS
        | {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 128,
        },
    ),
}

_UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,
    "cross_attention_dim": 24,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_KL = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 16,
}
_PIXART = {
    "sample_size": 8,
    "num_layers": 2,
    "patch_size": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "in_channels": 4,
    "out_channels": 8,
    "cross_attention_dim": 32,
    "caption_channels": 24,
}
_PIXART_1024 = _PIXART | {
    "sample_size": 128,
    "patch_size": 8,
    "attention_head_dim": 24,
    "cross_attention_dim": 48,
}
_DC = {
    "in_channels": 3,
    "latent_channels": 8,
    "attention_head_dim": 8,
    "encoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "decoder_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    "encoder_block_out_channels": (8, 16, 16),
    "decoder_block_out_channels": (8, 16, 16),
    "encoder_layers_per_block": (1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1),
    "encoder_qkv_multiscales": ((), (), (5,)),
    "decoder_qkv_multiscales": ((), (), (5,)),
    "scaling_factor": 0.41407,
}
_SANA = {
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "patch_size": 1,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 24,
}
_SD_NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}

Part = tuple[str, dict[str, Any]]

VISIONS: dict[str, tuple[str, dict[str, Part], Part]] = {
    # name: pipeline class, {folder: (diffusers class, config)}, scheduler
    "sd": (
        "StableDiffusionPipeline",
        {"unet": ("UNet2DConditionModel", _UNET), "vae": ("AutoencoderKL", _KL)},
        ("PNDMScheduler", _SD_NOISE | {"skip_prk_steps": True, "set_alpha_to_one": False}),
    ),
    "sd2-v": (
        "StableDiffusionPipeline",
        {
            "unet": ("UNet2DConditionModel", _UNET | {"use_linear_projection": True}),
            "vae": ("AutoencoderKL", _KL),
        },
        ("DDIMScheduler", _SD_NOISE | {"prediction_type": "v_prediction"}),
    ),
    "ldm": (
        "LDMTextToImagePipeline",
        {"unet": ("UNet2DConditionModel", _UNET), "vqvae": ("AutoencoderKL", _KL)},
        ("DDIMScheduler", _SD_NOISE | {"clip_sample": False}),
    ),
    "pixart-alpha": (
        "PixArtAlphaPipeline",
        {"transformer": ("PixArtTransformer2DModel", _PIXART), "vae": ("AutoencoderKL", _KL)},
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "pixart-sigma": (
        "PixArtSigmaPipeline",
        {"transformer": ("PixArtTransformer2DModel", _PIXART), "vae": ("AutoencoderKL", _KL)},
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "pixart-alpha-1024": (  # told the image's size, as the 1024-px checkpoints are
        "PixArtAlphaPipeline",
        {
            "transformer": ("PixArtTransformer2DModel", _PIXART_1024),
            "vae": ("AutoencoderKL", _KL),
        },
        ("DPMSolverMultistepScheduler", {"beta_start": 0.0001, "beta_end": 0.02}),
    ),
    "sana": (
        "SanaPipeline",
        {"transformer": ("SanaTransformer2DModel", _SANA), "vae": ("AutoencoderDC", _DC)},
        (
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
    ),
}


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
            model.save_pretrained(folder / part)
    getattr(diffusers, scheduler)(**noise).save_pretrained(folder / "scheduler")
    write_index(folder, name)
    return folder


def write_index(folder: Path, name: str) -> None:
    """Write the model_index.json of a pipeline folder."""
    pipeline, parts, (scheduler, _) = VISIONS[name]
    index: dict[str, Any] = {"_class_name": pipeline, "scheduler": ["diffusers", scheduler]}
    index |= {part: ["diffusers", class_name] for part, (class_name, _) in parts.items()}
    index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def make_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer: every prompt has tokens, and every token is known."""
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
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
