"""How the bundled models are made: tokenizers, objectives, resuming, and what comes out."""

import json
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lavi_bridge import BridgeError
from lavi_bridge.running import run_state as resume
from lavi_bridge.shapes.world import ShapesWorld, evaluation_set, vocabulary
from lavi_bridge.zoo.making import build, image, text, tokens
from lavi_bridge.zoo.making.catalogue import MODELS
from lavi_bridge.zoo.making.fitting import Objective, Schedule, fit
from lavi_bridge.zoo.making.image import Denoising, SameStates, read
from lavi_bridge.zoo.making.text import cut_spans, documents

CORPUS = [*documents(1500, "test"), " ".join(vocabulary())]


# ---- tokenizers


@pytest.mark.parametrize("kind", tokens.KINDS)
def test_no_word_of_the_grammar_is_unknown_in_any_case_or_before_a_full_stop(kind: str) -> None:
    tokenizer = tokens.KINDS[kind](CORPUS, 150)
    for word in set(vocabulary()) - {"."}:
        plain, loud, ended = tokenizer([word, word.upper(), f"{word}."])["input_ids"]
        assert plain == loud
        stop = tokenizer(".")["input_ids"]
        assert len(ended) == len(plain) + len(stop) - len(tokenizer("")["input_ids"])
        if kind != "clip":  # whose unknown token is its end
            assert tokenizer.unk_token_id not in plain, word


@pytest.mark.parametrize("kind", ["clip", "t5", "llama"])
def test_common_words_are_whole_and_rare_ones_are_pieces(kind: str) -> None:
    tokenizer = tokens.KINDS[kind](CORPUS, 150)
    assert len(tokenizer.tokenize("red")) == 1
    assert len(tokenizer.tokenize("zürich")) > 3
    longest = max(len(x) for x in tokenizer([p.text for p in evaluation_set(64)[0]])["input_ids"])
    assert longest <= 32  # what the image models read


def test_each_kind_has_the_marks_of_its_model() -> None:
    made = {kind: make(CORPUS, 150) for kind, make in tokens.KINDS.items()}
    assert made["clip"].convert_ids_to_tokens(made["clip"]("red")["input_ids"]) == [
        "<|startoftext|>",
        "red</w>",
        "<|endoftext|>",
    ]
    assert made["t5"].convert_ids_to_tokens(made["t5"]("red")["input_ids"]) == ["▁red", "</s>"]
    assert made["llama"].convert_ids_to_tokens(made["llama"]("red")["input_ids"]) == ["<s>", "▁red"]
    assert made["llama"].pad_token is None  # as Llama's
    assert "<0xC3>" in made["llama"].tokenize("ü")


# ---- text


def test_documents_are_the_same_for_the_same_place_and_tell_of_one_scene() -> None:
    assert documents(20, 1, "a") == documents(20, 1, "a") != documents(20, 1, "b")
    assert sum(" . " in text for text in CORPUS) > 0.8 * len(CORPUS)
    assert {word for text in CORPUS[:-1] for word in text.split()} <= set(vocabulary())


def test_spans_that_are_cut_out_can_be_put_back() -> None:
    ids = list(range(100, 140))
    left, right = cut_spans(ids, 3, random.Random(0))
    assert 0.1 < 1 - sum(i >= 100 for i in left) / len(ids) < 0.5
    whole = []
    for token in left:
        if token >= 100:
            whole.append(token)
        else:
            start = right.index(token) + 1
            stop = next((i for i in range(start, len(right)) if right[i] < 100), len(right))
            whole += right[start:stop]
    assert whole == ids


# ---- the loop


class Line(Objective):
    """Fit one number to noisy data."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.stop_at: int | None = None

    def loss(self, step: int, batch: int) -> Tensor:
        if step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(batch, generator=generator)
        noise = torch.randn(batch, generator=generator)
        return (self.slope * x - 3 * x - 0.1 * noise).square().mean()

    def held_out(self) -> dict[str, float]:
        return {"held_out_loss": abs(self.slope.item() - 3)}


SCHEDULE = Schedule(steps=60, batch=8, lr=0.2, warmup=5, ema=0.9)


def test_stopped_and_repeated_it_ends_with_the_very_same_weights(tmp_path: Path) -> None:
    whole, first, second = Line(), Line(), Line()
    fit(whole, SCHEDULE, tmp_path / "whole", name="line")
    assert abs(whole.slope.item() - 3) < 0.2
    first.stop_at = 23
    with pytest.raises(BridgeError, match="line stopped at step 24 of 60; it goes on from"):
        fit(first, SCHEDULE, tmp_path / "parts", name="line")
    fit(second, SCHEDULE, tmp_path / "parts", name="line")
    assert torch.equal(whole.slope, second.slope)
    lines = [json.loads(x) for x in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [0, 50, 60, 60]
    assert lines[-1]["held_out_loss"] < lines[0]["held_out_loss"]


def test_a_full_disk_leaves_the_earlier_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    resume.write_tensors({"a": torch.ones(2)}, path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "save_file", full)
    with pytest.raises(BridgeError, match=r"cannot write .*no space left on the disk; what was"):
        resume.write_tensors({"a": torch.zeros(2)}, path)
    monkeypatch.undo()
    from lavi_bridge.files.atomic import read_safetensors

    assert read_safetensors(path)["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_another_schedule_does_not_go_on_from_a_state(tmp_path: Path) -> None:
    fit(Line(), SCHEDULE, tmp_path, name="line")
    with pytest.raises(BridgeError, match=r"other settings \(lr: 0.2 there, 0.1 here\)"):
        fit(Line(), Schedule(steps=60, batch=8, lr=0.1, warmup=5, ema=0.9), tmp_path, name="line")


# ---- the models


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reduced build of one language model."""
    out = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        take_few(patch)
        build.build(["tiny-t5-small"], out=out, check=True)
    return out


def take_few(patch: pytest.MonkeyPatch) -> None:
    """Measure on few texts, and encode few pictures: they take most of the time."""
    patch.setattr(text, "HELD_OUT", 64)
    patch.setattr(image, "HELD_OUT", 64)
    patch.setattr(image, "BLOCK", 64)


@pytest.mark.slow
def test_a_language_model_is_built_and_goes_on_from_earlier_weights(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForTextEncoding, AutoTokenizer

    take_few(monkeypatch)

    name = "tiny-t5-small"
    folder = built / name
    model = AutoModelForTextEncoding.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).tokenize("a red ring") == ["▁a", "▁red", "▁ring"]
    assert model.config.hidden_size == 48
    assert model.dtype == torch.float16
    build.build([name], out=tmp_path, check=True, start=folder, steps=2)
    logs = [out / f"work/{name}/text/log.jsonl" for out in (built, tmp_path)]
    fresh, further = (json.loads(log.read_text().splitlines()[0]) for log in logs)
    assert further["held_out_loss"] < 0.95 * fresh["held_out_loss"]


def test_a_finished_stage_is_kept_and_another_recipe_does_not_mix_with_it(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    build.build(["tiny-t5-small"], out=tmp_path, check=True)
    assert "[1/1] tiny-t5-small text: done before" in capsys.readouterr().out
    with pytest.raises(BridgeError, match="was made by another recipe"):
        build.build(["tiny-t5-small"], out=tmp_path)
    assert (tmp_path / "curves.svg").read_text().count("<polyline") == 0  # one point a curve
    assert "tiny-t5-small text" in (tmp_path / "curves.svg").read_text()


def test_names_and_starts_are_checked(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"no recipe for 'tiny-lama'; .*mean 'tiny-llama'"):
        build.build(["tiny-lama"], out=tmp_path)
    with pytest.raises(BridgeError, match="earlier weights are for one language model"):
        build.build(["tiny-sd"], out=tmp_path, start=tmp_path)


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n].stages[0].name == "text"])
def test_a_recipe_makes_the_shapes_of_the_bundled_model(name: str, tmp_path: Path) -> None:
    from lavi_bridge.files.atomic import read_safetensors
    from lavi_bridge.files.locate import ZOO

    task = MODELS[name].stages[0].task(build.Context(tmp_path, "cpu", check=True))
    made = {n: tuple(p.shape) for n, p in task.named_parameters()}
    bundled = read_safetensors(ZOO / name / "model.safetensors")
    for tensor, value in bundled.items():
        assert made[f"model.{tensor}"] == tuple(value.shape), tensor


def test_every_bundled_model_has_a_recipe_and_is_small() -> None:
    from lavi_bridge.files.locate import ZOO, zoo_names

    assert zoo_names() == sorted(MODELS)
    assert sum(p.stat().st_size for p in ZOO.rglob("*.safetensors")) < 30e6
    assert not any("_name_or_path" in p.read_text() for p in ZOO.rglob("config.json"))


@pytest.mark.slow
def test_an_encoder_whose_padding_is_masked_learns_the_states_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_few(monkeypatch)
    context = build.Context(tmp_path, "cpu", check=True)
    stage = MODELS["tiny-pixart"].stages[0]
    task = stage.task(context)
    assert isinstance(task, SameStates)
    assert read(task.student, ["a red ring"]).mask is not None
    before = task.held_out()["held_out_loss"]
    fit(task, replace(stage.schedule, steps=12, batch=16, warmup=2), tmp_path / "fit", name="fit")
    assert task.held_out()["held_out_loss"] < 0.9 * before
    stage.finish(context, task)
    begun = MODELS["tiny-pixart"].stages[1].task(context)
    assert isinstance(begun, Denoising)
    for name, value in begun.student.language.model.state_dict().items():
        torch.testing.assert_close(
            value, task.student.language.model.state_dict()[name].half().float()
        )


@pytest.mark.zoo
def test_a_reduced_version_of_every_model_learns_and_a_finished_build_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = build.build(out=tmp_path, check=True)
    assert sorted(path.name for path in made) == sorted(MODELS)
    capsys.readouterr()
    build.build(out=tmp_path, check=True)
    assert capsys.readouterr().out.count("done before") == 11


# ---- the bundled models


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-ldm", "tiny-pixart"])
def test_an_image_model_loads_and_draws_by_plain_diffusers(name: str) -> None:
    from diffusers import DiffusionPipeline

    from lavi_bridge.files.locate import ZOO

    pipeline = DiffusionPipeline.from_pretrained(str(ZOO / name), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    side = 128 if name == "tiny-ldm" else 64  # its pipeline takes 8 pixels a latent for granted
    size = {"height": side, "width": side}
    if name == "tiny-pixart":
        size["use_resolution_binning"] = False  # which knows of 256 px and more
    picture = pipeline("a red circle", num_inference_steps=2, **size).images[0]
    assert picture.size == (64, 64)


@pytest.mark.parametrize(
    "name", [n for n in MODELS if "text" in [s.name for s in MODELS[n].stages]]
)
def test_a_language_model_loads_by_plain_transformers(name: str) -> None:
    from transformers import AutoTokenizer, CLIPTextModel, LlamaModel, T5EncoderModel

    from lavi_bridge.files.locate import ZOO

    kinds = {"clip": CLIPTextModel, "t5": T5EncoderModel, "llama": LlamaModel}
    model, report = kinds[name.split("-")[1]].from_pretrained(
        ZOO / name, output_loading_info=True, dtype=torch.float32
    )
    assert not report["missing_keys"]
    ids = AutoTokenizer.from_pretrained(ZOO / name)(ShapesWorld().caption(0), return_tensors="pt")
    assert model(ids["input_ids"]).last_hidden_state.isfinite().all()
