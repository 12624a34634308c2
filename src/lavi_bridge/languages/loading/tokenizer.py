"""Tokenizers: from a folder or the Hub, with a token to pad with; and errors of loading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavi_bridge.errors import BridgeError
from lavi_bridge.files.locate import Place
from lavi_bridge.files.pretrained import loading


def choose_pad_token(
    tokenizer: Any, kinds: Sequence[str], embeddings: int | None, place: Place
) -> None:
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


def unknown_token(
    ids: Sequence[int], tokenizer: Any, embeddings: int | None, place: Place
) -> str | None:
    """What is wrong with the ids of a text, if the model would look one up beyond its table."""
    highest = max(ids, default=0)
    if embeddings is None or highest < embeddings:
        return None
    return (
        f"a text has the token {tokenizer.convert_ids_to_tokens(highest)!r}, number {highest} of "
        f"the tokenizer, but '{place.id}' has {embeddings} embeddings, numbered from 0: take the "
        "token out, or the tokenizer that the model was trained with"
    )


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

    if not place.gguf and not any(place.file(name) for name in TOKENIZER_FILES):
        number = Path(place.subfolder or place.root).name.partition("text_encoder")[2]
        beside = place.beside(f"tokenizer{number}")
        place = beside if any(beside.file(name) for name in TOKENIZER_FILES) else place
    source = place.pretrained()
    if place.subfolder and not place.local:
        # transformers does not find a tokenizer in a subfolder of the Hub's cache by itself
        fetched = [path for name in TOKENIZER_FILES if (path := place.file(name))]
        source = {"pretrained_model_name_or_path": fetched[0].parent} if fetched else source
    with loading(f"the tokenizer of '{place.id}'", trust_remote_code=trust_remote_code):
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=trust_remote_code)
    tokenizer.truncation_side = "right"
    return tokenizer
