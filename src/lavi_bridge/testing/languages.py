"""Tiny language models: a class of transformers and its config each."""

from __future__ import annotations

from typing import Any

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
