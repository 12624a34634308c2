"""Weights on disk: one fingerprint however stored, and what earlier commits noted still counts.

`tests/golden/earlier/bridge` was written by commit 23aaa31 on `tests/golden/t5_unet/base`, and so
were the digits here.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavi_bridge import Bridge, BridgeError, testing
from lavi_bridge.data.cache.latents import check_about
from lavi_bridge.evaluate.drawing import claim
from lavi_bridge.evaluate.scoring import _features_path, _journal, digest
from lavi_bridge.files.locate import locate
from lavi_bridge.files.weights import Fingerprint, earlier, fingerprint, joined
from lavi_bridge.languages import load_language
from lavi_bridge.metrics import Score
from lavi_bridge.metrics.distances import Distance
from lavi_bridge.running.run_state import RunState
from lavi_bridge.visions import load_vision
from tests.conftest import GOLDEN

Tiny = Callable[[str], Path]
Change = Callable[[Path], object]

BASE = GOLDEN / "t5_unet" / "base"
EARLIER = {"language": "960504309bc45d7b", "vision": "b6eeb351ee91f547", "vae": "d14701ad40efa5d4"}
"""Of BASE, by commit 23aaa31."""


def model_of(folder: Path) -> tuple[Path, str]:
    """The weights in a folder, and the name that they have as a pickle."""
    (path,) = folder.glob("*model.safetensors")
    stem = "pytorch_model" if path.stem == "model" else path.stem
    return path, f"{stem}.bin"


def windows(folder: Path) -> None:
    config = folder / "config.json"
    config.write_bytes(config.read_bytes().replace(b"\n", b"\r\n"))


def rewritten(folder: Path) -> None:
    """Another version of the library, another place, keys in another order."""
    config = folder / "config.json"
    found = json.loads(config.read_text())
    found |= {"transformers_version": "9.9.9", "_name_or_path": "there", "torch_dtype": "float32"}
    found.pop("architectures", None)
    config.write_text(json.dumps(dict(sorted(found.items(), reverse=True))))


def pickled(folder: Path) -> None:
    path, name = model_of(folder)
    torch.save(load_file(path), folder / name)
    path.unlink()


def pickled_long_ago(folder: Path) -> None:
    """As torch wrote files before 1.6, with more in them than tensors."""
    path, name = model_of(folder)
    found = load_file(path) | {"steps": 7, "more": {"a": 1}}
    torch.save(found, folder / name, _use_new_zipfile_serialization=False)
    path.unlink()


def sharded(folder: Path) -> None:
    """Two files and an index, the tensors out of order; names of the files are anything."""
    path, _ = model_of(folder)
    tensors = load_file(path)
    names = {name: f"{path.stem}-part{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(names.values()):
        part = {n: t for n, t in tensors.items() if names[n] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": names}
    (folder / f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()


STORED: list[Change] = [windows, rewritten, pickled, pickled_long_ago, sharded]


@pytest.fixture
def saved(tiny: Tiny, tmp_path: Path) -> tuple[Path, str]:
    """A bridge on disk and its id."""
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2)
    bridge.save(tmp_path / "bridge")
    return tmp_path / "bridge", bridge.id


# ---- the same weights


@pytest.mark.parametrize("change", STORED)
def test_a_language_model_stored_in_another_way_is_the_same(
    tiny: Tiny, tmp_path: Path, saved: tuple[Path, str], change: Change
) -> None:
    folder = Path(shutil.copytree(tiny("t5"), tmp_path / "t5"))
    change(folder)
    again = Bridge.load(saved[0], language=folder)
    assert again.id == saved[1]
    again.save(tmp_path / "again")  # legacy pickles cannot be mapped


@pytest.mark.parametrize("change", [windows, rewritten, pickled, pickled_long_ago])
def test_backbone_and_autoencoder_stored_in_another_way_are_the_same(
    tiny: Tiny, tmp_path: Path, saved: tuple[Path, str], change: Change
) -> None:
    folder = Path(shutil.copytree(tiny("sd"), tmp_path / "sd"))
    change(folder / "unet")
    change(folder / "vae")
    assert Bridge.load(saved[0], vision=folder).id == saved[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
def test_both_formats_spell_a_precision_alike(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"b": torch.arange(3000).to(dtype), "a": torch.ones(2, 2).to(dtype)}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    save_file(tensors, tmp_path / "one" / "model.safetensors")
    torch.save(tensors, tmp_path / "two" / "pytorch_model.bin")
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")


@pytest.mark.parametrize(
    "change",
    [
        lambda config, tensors: config.update(d_kv=4),
        lambda config, tensors: tensors["shared.weight"].add_(1),
        lambda config, tensors: tensors.update(other=tensors.pop("shared.weight")),
        lambda config, tensors: tensors.update(
            {"shared.weight": tensors["shared.weight"].bfloat16()}
        ),
    ],
    ids=["config", "value", "name", "precision"],
)
def test_other_weights_have_another_fingerprint(
    tiny: Tiny, tmp_path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]
) -> None:
    folder = Path(shutil.copytree(tiny("t5"), tmp_path / "t5"))
    before, path = fingerprint(folder), folder / "model.safetensors"
    config, tensors = json.loads((folder / "config.json").read_text()), load_file(path)
    change(config, tensors)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, path)
    assert fingerprint(folder) != before


# ---- variants


def as_variant(folder: Path, variant: str = "fp16") -> None:
    """Half precision under a variant's name, and nothing else."""
    path, _ = model_of(folder)
    half = {name: tensor.half() for name, tensor in load_file(path).items()}
    save_file(half, folder / f"{path.stem}.{variant}.safetensors", metadata={"format": "pt"})
    path.unlink()


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_variant_is_taken_where_there_is_nothing_else(
    tiny: Tiny, tmp_path: Path, variant: str
) -> None:
    language = Path(shutil.copytree(tiny("t5"), tmp_path / "t5"))
    vision = Path(shutil.copytree(tiny("sd"), tmp_path / "sd"))
    for folder in (language, vision / "unet", vision / "vae"):
        as_variant(folder, variant)
    bridge = Bridge.connect(language, vision, rank=2)
    assert bridge.language.dtype == bridge.vision.dtype == torch.float32
    bridge.save(tmp_path / "out")
    assert Bridge.load(tmp_path / "out").id == bridge.id


def test_a_variant_in_pickles_and_shards_is_taken(tiny: Tiny, tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    folder = Path(shutil.copytree(tiny("t5"), tmp_path / "t5"))
    model = T5EncoderModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, variant="fp16", max_shard_size="20KB")
    assert list(folder.glob("*.index.fp16.json"))
    split = load_language(locate(folder), dtype=torch.float32)
    assert split.fingerprint == fingerprint(tiny("t5"))  # the values are those of before

    vision = Path(shutil.copytree(tiny("sd"), tmp_path / "sd"))
    path, name = model_of(vision / "unet")
    torch.save(load_file(path), path.with_name(name.replace(".bin", ".fp16.bin")))
    path.unlink()
    assert load_vision(locate(vision), dtype=torch.float32).fingerprint


def test_plain_weights_win_over_a_variant_beside_them(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("t5"), tmp_path / "t5"))
    plain = load_file(folder / "model.safetensors")
    shifted = {name: tensor + 1 for name, tensor in plain.items()}
    save_file(shifted, folder / "model.fp16.safetensors", metadata={"format": "pt"})
    assert fingerprint(folder) == fingerprint(tiny("t5"))
    loaded = load_language(locate(folder), dtype=torch.float32).model.shared.weight
    assert torch.equal(loaded, plain["shared.weight"])


def test_no_weights_at_all_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("t5"), tmp_path / "t5"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BridgeError, match="cannot load language model") as caught:
        load_language(locate(folder), dtype=torch.float32)
    assert "\n" not in str(caught.value)


# ---- what commit 23aaa31 noted


def test_the_digits_of_an_earlier_commit_are_known() -> None:
    language = load_language(locate(BASE / "language"), dtype=torch.float32)
    vision = load_vision(locate(BASE / "vision"), dtype=torch.float32)
    assert earlier([language.fingerprint, vision.fingerprint, vision.vae_fingerprint]) == [
        EARLIER["language"],
        EARLIER["vision"],
        EARLIER["vae"],
    ]
    assert language.fingerprint != EARLIER["language"]


def test_a_bridge_of_an_earlier_commit_loads_and_keeps_its_id(tmp_path: Path) -> None:
    folder = GOLDEN / "earlier" / "bridge"
    bridge = Bridge.load(folder, language=BASE / "language", vision=BASE / "vision")
    assert bridge.id == json.loads((folder / "bridge.json").read_text())["id"] == "e0952798c631"
    bridge.save(tmp_path / "again")
    assert Bridge.load(tmp_path / "again").id == bridge.id


def test_a_bridge_of_an_earlier_commit_is_refused_on_other_models(tmp_path: Path) -> None:
    folder, other = GOLDEN / "earlier" / "bridge", GOLDEN / "t5_pixart" / "base" / "language"
    with pytest.raises(BridgeError, match="was trained on another language model"):
        Bridge.load(folder, language=other, vision=BASE / "vision")


def test_the_baseline_had_another_id(tmp_path: Path) -> None:
    """Its images of an evaluation by commit 23aaa31 still count."""
    vision = load_vision(locate(BASE / "vision"), dtype=torch.float32)
    language = load_language(locate(BASE / "language"), dtype=torch.float32)
    made = joined(language.fingerprint, vision.fingerprint, digits=12)
    before = joined(EARLIER["language"], EARLIER["vision"], digits=12)
    assert made.earlier == before
    # zoo:tiny-sd with its own encoder, by commit 23aaa31
    assert joined("67742cafa05ddc1d", "2604dee80d3ca722", digits=12) == "81286089f736"
    (tmp_path / "settings.json").write_text(json.dumps({"bridge": str(before), "seed": 1}))
    claim(tmp_path, {"bridge": made, "seed": 1})
    with pytest.raises(BridgeError, match="drawn with another seed"):
        claim(tmp_path, {"bridge": made, "seed": 2})
    with pytest.raises(BridgeError, match="drawn with another bridge"):
        claim(tmp_path, {"bridge": joined("another", digits=12), "seed": 1})


def test_a_run_of_an_earlier_commit_goes_on(tmp_path: Path) -> None:
    language = fingerprint(BASE / "language")
    weight = torch.nn.Parameter(torch.ones(2))

    def state(noted: str) -> RunState:
        about = {"language model": noted, "seed": 0}
        return RunState(
            tmp_path / "state.safetensors",
            about=about,
            tensors={"w": weight},
            optimizer=torch.optim.AdamW([weight]),
        )

    state(EARLIER["language"]).save(step=3)
    assert state(language).load()["step"] == 3
    state(language).save(step=4)  # now with the digits of today
    assert state(language).load()["step"] == 4
    with pytest.raises(BridgeError, match="language model: "):
        state(fingerprint(BASE / "vision" / "vae")).load()


def test_a_cache_of_an_earlier_commit_goes_on(tmp_path: Path) -> None:
    check_about(tmp_path, {"language model": EARLIER["language"]}, "features")
    check_about(tmp_path, {"language model": fingerprint(BASE / "language")}, "features")
    with pytest.raises(BridgeError, match="made with another language model"):
        check_about(tmp_path, {"language model": Fingerprint("0" * 16)}, "features")


def test_scores_and_features_of_an_earlier_commit_are_not_made_again(tmp_path: Path) -> None:
    made = fingerprint(BASE / "vision" / "vae")

    class Judge(Score):
        def provenance(self) -> dict[str, str]:
            return {"scorer": "some", "weights": made}

    class Extractor(Distance):
        def provenance(self) -> dict[str, str]:
            return {"weights": made}

    score, distance = Judge(), Extractor()
    assert digest(score) != digest(score, before=True)
    assert _journal("judge", score, tmp_path).path.stem == f"judge-{digest(score)}"
    noted = f"judge-{digest(score, before=True)}"
    (tmp_path / f".{noted}.0.jsonl").write_text("")  # it was stopped
    assert _journal("judge", score, tmp_path).path.stem == noted
    assert _features_path(distance, [], tmp_path).parent.name == digest(distance)
    kept = tmp_path / digest(distance, before=True) / _features_path(distance, [], tmp_path).name
    kept.parent.mkdir()
    kept.write_bytes(b"")
    assert _features_path(distance, [], tmp_path) == kept


def test_a_folder_that_an_earlier_commit_could_not_read_has_no_earlier_digits(
    tiny: Tiny, tmp_path: Path
) -> None:
    folder = testing.make_language(tmp_path / "t5", "t5")
    as_variant(folder)
    made = fingerprint(folder)
    assert made.earlier == made


def test_a_damaged_file_is_not_replaced_by_a_variant_beside_it(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    shutil.copytree(tiny("sd"), folder)
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(plain, plain.with_suffix(".fp16.safetensors"))
    plain.write_bytes(plain.read_bytes()[:1000])
    with pytest.raises(BridgeError, match="cannot load"):
        Bridge.connect(tiny("t5"), folder, rank=2, device="cpu")
