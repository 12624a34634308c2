"""Tokenizers for the zoo's language models, each of the kind that its real counterpart has.

All put text in lower case and split off punctuation, so that no word of the grammar is unknown to
any of them; they differ in how they cut words, in the marks around a text, and in padding.
"""

from __future__ import annotations

import json
import math
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTINELS = 8
"""T5's `<extra_id_N>`: what spans are replaced by in its pre-training."""

LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def clip(texts: Sequence[str], size: int) -> Any:
    """Byte-level BPE with `</w>` at the end of words, as CLIP's; `size` merges."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    splitting = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = _lower(), splitting
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + size,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    merges = _merges(trained)[:size]
    # every byte must be known at the end of a word, too, not only those that were seen there
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, merges)]
    words = [*dict.fromkeys(words), start, end]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=end, end_of_word_suffix="</w>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _lower(), splitting
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    return _fast(tokenizer, bos_token=start, eos_token=end, unk_token=end, pad_token=end)


def t5(texts: Sequence[str], size: int) -> Any:
    """Unigram pieces with `▁` before words, as T5's; `size` pieces longer than a letter.

    The trainer that belongs to the model finds no whole words in a language of so few, so the
    pieces are those of a BPE, scored by how often it uses each.
    """
    special = ["<pad>", "</s>", "<unk>"] + [f"<extra_id_{i}>" for i in range(SENTINELS)]
    trained = _metaspace_bpe(texts, size)
    used = Counter(piece for text in texts for piece in trained.encode(text).tokens)
    letters = ["▁", *LETTERS]
    pieces = [*letters, *(p for p in trained.get_vocab() if p not in letters)]
    total = sum(used.values())
    scores = [(piece, math.log((used[piece] + 0.5) / total)) for piece in pieces]
    known = [(token, 0.0) for token in special] + sorted(scores, key=lambda x: (-x[1], x[0]))
    tokenizer = Tokenizer(models.Unigram(known, unk_id=special.index("<unk>")))
    tokenizer.normalizer, tokenizer.pre_tokenizer = _lower(), _metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", special.index("</s>"))]
    )
    return _fast(
        tokenizer,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=special[3:],
    )


def llama(texts: Sequence[str], size: int) -> Any:
    """BPE with `▁` before words that falls back to bytes, as Llama's; no padding token."""
    special = ["<unk>", "<s>", "</s>"]
    merges = _merges(_metaspace_bpe(texts, size))
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *LETTERS]
    pieces = list(dict.fromkeys([*pieces, *map("".join, merges)]))
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = _lower(), _metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return _fast(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def words(texts: Sequence[str], size: int) -> Any:
    """One word, one token: the image models' own encoders read the world with it."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = dict.fromkeys([*special, *sorted({w for t in texts for w in t.lower().split()})])
    indices = {word: index for index, word in enumerate(list(vocabulary)[:size])}
    tokenizer = Tokenizer(models.WordLevel(indices, unk_token="<unk>"))
    tokenizer.normalizer = _lower()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return _fast(tokenizer, **names)


KINDS: dict[str, Callable[[Sequence[str], int], Any]] = {
    "clip": clip,
    "t5": t5,
    "llama": llama,
    "words": words,
}


def _lower() -> Any:
    return normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])


def _metaspace() -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Metaspace("▁", prepend_scheme="always"),
        ]
    )


def _metaspace_bpe(texts: Sequence[str], size: int) -> Tokenizer:
    """A BPE of `size` merges over words that begin with `▁`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = _lower(), _metaspace()
    letters = ["▁", *LETTERS]
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + size, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [(a, b) for a, b in json.loads(tokenizer.to_str())["model"]["merges"]]


def _fast(tokenizer: Tokenizer, **special: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
