"""CLIP score and aesthetic scores: small random models of the real classes, published heads."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lavi_bridge import BridgeError
from lavi_bridge.files.weights import fingerprint
from lavi_bridge.metrics import METRICS, Score
from lavi_bridge.metrics.aesthetics import AestheticV1, AestheticV2, aesthetic, read_head
from lavi_bridge.metrics.base import exact
from lavi_bridge.metrics.clip import CLIPScore, clip_score, load_clip
from lavi_bridge.prompts.prompt import Prompt

WIDTH = 24
TEXTS = ["a red cat", "two dogs and a blue house", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with tokenizer and image processor, in the layout of the Hub."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    words = [*pieces, "<|startoftext|>", "<|endoftext|>"]
    path = tmp_path_factory.mktemp("clip")
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(path)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(path)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ends = {"bos_token_id": len(pieces), "eos_token_id": len(pieces) + 1}
    config = CLIPConfig(
        projection_dim=WIDTH,
        text_config=tower | ends | {"vocab_size": len(words), "max_position_embeddings": 20},
        vision_config=tower | {"image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    return [picture, Image.new("RGB", (33, 64), "red"), picture.convert("L")]


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return [Prompt(id=str(n), text=text) for n, text in enumerate(TEXTS)]


def preprocessed(picture: Image.Image) -> Tensor:
    """What OpenAI's code does: bicubic to 32 on the short side, centre, mean and deviation."""
    picture = picture.convert("RGB")
    scale = 32 / min(picture.size)
    width, height = (int(side * scale) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 32) // 2, (height - 32) // 2
    array = np.asarray(picture.crop((left, top, left + 32, top + 32)), dtype=np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
    deviation = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
    return torch.from_numpy(((array - mean) / deviation).transpose(2, 0, 1))


def embeddings(folder: Path, pictures: list[Image.Image]) -> tuple[Tensor, Tensor]:
    """Images and `TEXTS` step by step: tower, the pooled token, projection."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    with torch.no_grad():
        pixels = torch.stack([preprocessed(picture) for picture in pictures])
        seen = model.vision_model(pixels).last_hidden_state[:, 0]
        images = model.vision_model.post_layernorm(seen) @ model.visual_projection.weight.T
        texts = []
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            if ids.shape[1] > 20:  # the last token stays the end
                ids = torch.cat([ids[:, :19], ids[:, -1:]], 1)
            texts.append(model.text_model(ids).last_hidden_state[0, -1])
        return images, torch.stack(texts) @ model.text_projection.weight.T


# ---- CLIP score


def test_the_score_is_the_raw_cosine() -> None:
    images = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    texts = torch.tensor([[6.0, 8.0], [0.0, 5.0], [-1.0, 0.0]])
    assert clip_score(images, texts).tolist() == pytest.approx([1, 0, -1])
    assert clip_score(images[:1], torch.tensor([[5.0, 0.0]])).item() == pytest.approx(0.6)


def test_a_score_is_its_formula_step_by_step(
    folder: Path, pictures: list[Image.Image], prompts: list[Prompt]
) -> None:
    metric = METRICS["clip-score"](scorer=folder)  # type: ignore[call-arg]
    assert isinstance(metric, CLIPScore)
    images, texts = embeddings(folder, pictures)
    expected = [
        (image @ text / (image.norm() * text.norm())).item()
        for image, text in zip(images, texts, strict=True)
    ]
    assert metric(pictures, prompts) == pytest.approx(expected, abs=1e-5)
    assert metric.note(prompts) == (
        "1 of 3 texts are longer than the 20 tokens of CLIP score's model, which does not read "
        "their ends"
    )
    assert metric.note(prompts[:1]) is None
    alone = [metric([pictures[n]], [prompts[n]])[0] for n in range(3)]
    assert alone == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="shorter"):
        metric(pictures, prompts[:1])


def test_scores_of_one_clip_share_it_and_its_latest_embeddings(
    folder: Path, pictures: list[Image.Image], prompts: list[Prompt], tmp_path: Path
) -> None:
    score = CLIPScore(scorer=folder, device="cpu")
    head = write_head(tmp_path, [(WIDTH, 1)])
    other = AestheticV1(scorer=folder, head=head, device="cpu")
    assert score.clip is other.clip
    score(pictures, prompts)
    embedded = score.clip.image_embeddings(pictures)
    assert other.clip.image_embeddings(list(pictures)) is embedded
    assert other.clip.image_embeddings(pictures[:2]) is not embedded


def test_networks_judge_without_gradients_and_in_full_float32() -> None:
    before = torch.backends.cudnn.allow_tf32
    with exact():
        assert not torch.is_grad_enabled()
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.enabled
    assert torch.is_grad_enabled()
    assert torch.backends.cudnn.allow_tf32 == before


def test_provenance_names_model_fingerprint_and_versions(folder: Path) -> None:
    found = CLIPScore(scorer=folder).provenance()
    assert found["scorer"] == str(folder)
    assert found["weights"] == fingerprint(folder)
    assert found["transformers"].startswith("5.")


def test_a_clip_that_cannot_be_used_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"'openai/clip-vit-base-patch32' .*a local folder"):
        CLIPScore()
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(BridgeError, match="is no CLIP, but 't5'"):
        load_clip(tmp_path)
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(BridgeError, match=r"cannot load CLIP .*bare"):
        load_clip(bare)


# ---- aesthetics


def write_head(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """A head with random weights, named as the published second version is."""
    torch.manual_seed(1)
    layers = nn.Sequential(*(nn.Linear(n, m) for n, m in sizes))
    path = folder / "head.pth"
    torch.save({f"layers.{name}": value for name, value in layers.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("aesthetic-v1", [(WIDTH, 1)]), ("aesthetic-v2", [(WIDTH, 7), (7, 5), (5, 1)])],
)
def test_an_aesthetic_score_is_its_formula_step_by_step(
    name: str,
    sizes: list[tuple[int, int]],
    folder: Path,
    pictures: list[Image.Image],
    prompts: list[Prompt],
    tmp_path: Path,
) -> None:
    head = write_head(tmp_path, sizes)
    metric = METRICS[name](scorer=folder, head=head)  # type: ignore[call-arg]
    assert isinstance(metric, Score)
    x, _ = embeddings(folder, pictures)
    x = x / x.norm(dim=1, keepdim=True)
    state = torch.load(head, weights_only=True)
    for number in range(len(sizes)):
        x = x @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
    assert metric(pictures, prompts) == pytest.approx(x[:, 0].tolist(), abs=1e-5)
    found = metric.provenance()
    assert found["head"] == "head.pth"
    assert found["head weights"] == hashlib.sha256(head.read_bytes()).hexdigest()[:16]
    assert found["weights"] == fingerprint(folder)


@pytest.mark.parametrize(
    ("file", "embedded", "golden"),
    [
        (
            "laion-aesthetic-predictor/sa_0_4_vit_l_14_linear.pth",
            "vit_l_14",
            "laion_linear_vit_l_14",
        ),
        (
            "laion-aesthetic-predictor/sa_0_4_vit_b_32_linear.pth",
            "vit_b_32",
            "laion_linear_vit_b_32",
        ),
        (
            "improved-aesthetic-predictor/sac+logos+ava1-l14-linearMSE.pth",
            "vit_l_14",
            "improved_sac_logos_ava1_on_vit_l_14_embeddings",
        ),
    ],
)
def test_published_heads_give_the_published_embeddings_their_reference_values(
    shared: Path, file: str, embedded: str, golden: str
) -> None:
    ratings = shared / "weights" / "laion-aesthetic-predictor" / f"{embedded}_embeddings"
    rows = torch.from_numpy(
        np.concatenate([np.load(ratings / f"rating{n}.npy") for n in range(10)])
    )
    expected = json.loads((shared / "golden" / "values.json").read_text())[golden]
    layers = read_head(shared / "weights" / file, rows.shape[1])
    np.testing.assert_allclose(aesthetic(rows, layers), expected, atol=1e-4)
    np.testing.assert_allclose(aesthetic(rows * 7, layers), expected, atol=1e-4)


def test_the_published_heads_have_these_checksums(shared: Path) -> None:
    files = {path.name: path for path in (shared / "weights").rglob("*.pth")}
    for kind in (AestheticV1, AestheticV2):
        for (width, _, _), (file, sha256) in kind.heads.items():
            assert hashlib.sha256(files[file].read_bytes()).hexdigest() == sha256
            read_head(files[file], width)


def test_a_head_that_cannot_be_used_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BridgeError, match=r"head\.pth is no aesthetic head for embeddings of 24"):
        AestheticV2(scorer=folder, head=write_head(tmp_path, [(768, 1)]))
    with pytest.raises(BridgeError, match=r"is no aesthetic head .*\(2, 24\)"):
        AestheticV2(scorer=folder, head=write_head(tmp_path, [(24, 2)]))
    with pytest.raises(BridgeError, match=r"none\.pth is missing"):
        AestheticV2(scorer=folder, head=tmp_path / "none.pth")
    with pytest.raises(BridgeError, match=r"no head of Aesthetics v2 was published for .*clip"):
        AestheticV2(scorer=folder)
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(AestheticV1, "heads", {(24, 8, 32): ("linear.pth", "0" * 64)})
    place = tmp_path / "cache" / "linear.pth"
    with pytest.raises(
        BridgeError, match=rf"https://.*/6d122ad\w+/linear\.pth and put it at {place}"
    ):
        AestheticV1(scorer=folder)
