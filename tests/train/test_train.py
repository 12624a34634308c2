"""Training from the command line, as a user starts it."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavi_bridge import Bridge, BridgeError, testing
from lavi_bridge.bridge.drawing import read_record
from lavi_bridge.cli import main as cli
from lavi_bridge.config import FlowWeighting, Quantize
from lavi_bridge.data import TSV, Order, Visit
from lavi_bridge.data.examples import Examples, Look
from lavi_bridge.files.locate import locate
from lavi_bridge.languages import load_language
from lavi_bridge.train.options import TrainConfig
from lavi_bridge.train.run import Run
from lavi_bridge.train.validation import swap_word
from lavi_bridge.visions.noise.process import Flow
from tests.processes import lavi_bridge, run_distributed

Tiny = Callable[[str], Path]
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "black")


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A published caption file over eight one-coloured images."""
    for color in COLORS:
        Image.new("RGB", (20, 16), color).save(tmp_path / f"{color}.png")
    path = tmp_path / "captions.tsv"
    path.write_text("".join(f"{color}.png\ta {color} wall\n" for color in COLORS))
    return path


def config(tiny: Tiny, data: Path, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "language": str(tiny("t5")),
        "vision": str(tiny("sd")),
        "data": str(data),
        "out": out,
        "rank": 4,
        "steps": 4,
        "batch_size": 2,
        "log_every": 1,
        "sample_every": 0,
        "validate_every": 0,
        "device": "cpu",
        "tracker": "none",
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_bridge_metrics_samples_and_checkpoints(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = config(
        tiny, captions, out, sample_every=2, sample_steps=1, save_every=2, validate_every=2
    )
    trained = Run(settings).train()
    assert Bridge.load(out).id == Bridge.load(out / "bridge").id == trained.id
    assert sorted(p.name for p in out.iterdir()) == [
        ".lock",
        "bridge",
        "config.json",
        "curves.svg",
        "metrics.jsonl",
        "samples",
        "step-2",
        "step-4",
    ]
    assert [p.name for p in sorted((out / "samples").iterdir())] == [
        "000000.png",
        "000002.png",
        "000004.png",
    ]
    assert [m["step"] for m in metrics(out) if "loss" in m] == [1, 2, 3, 4]
    assert [m["step"] for m in metrics(out) if "probe_loss" in m] == [0, 2, 4]
    assert trained.training_summary["steps"] == 4


def test_a_dry_run_prints_the_plan_and_stops(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    done = lavi_bridge(
        "train",
        "--language",
        tiny("t5"),
        "--vision",
        tiny("sd"),
        "--data",
        captions,
        "--out",
        tmp_path / "run",
        "--dry-run",
        "--buckets",
        "--steps",
        40,
        "--caption-dropout",
        0,
        "--device",
        "cpu",
    )
    assert done.poll() == 0, done.stderr[-2000:]
    for line in (
        "8 pairs at ",
        "trained parameters: adapter",
        "40 steps of 8 images, 40.00 epochs",
        "memory: about 0.0 GB",
        "0 of the first 8 captions",
        "no trained null prompt",
    ):
        assert line in done.stdout
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not list((tmp_path / "run").glob("step-*"))


def test_tensorboard_gets_the_figures_and_the_samples(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    settings = config(
        tiny, captions, out, sample_every=2, sample_steps=1, validate_every=2, tracker="tensorboard"
    )
    Run(settings).train()
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("probe_loss")] == [0, 2, 4]
    assert [event.step for event in events.Images("samples")] == [0, 2, 4]


def test_a_tracker_that_is_not_installed_is_named(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    with pytest.raises(BridgeError, match="tracker 'wandb' is not installed: pip install wandb"):
        Run(config(tiny, captions, tmp_path / "run", tracker="wandb"))


def test_a_run_learns(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    settings = config(
        tiny,
        captions,
        tmp_path / "run",
        steps=30,
        batch_size=8,
        lr_adapter=3e-3,
        lr_language=3e-3,
        lr_vision=3e-3,
        warmup=0,
        validate_every=30,
    )
    Run(settings).train()
    first, last = [m["probe_loss"] for m in metrics(tmp_path / "run") if "probe_loss" in m]
    assert last < 0.9 * first


@pytest.mark.slow
def test_the_same_seed_trains_the_same_bridge_whatever_the_workers(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    ids = [Run(config(tiny, captions, tmp_path / str(n), workers=n)).train().id for n in (0, 1)]
    assert ids[0] == ids[1]
    assert Run(config(tiny, captions, tmp_path / "other", seed=1)).train().id != ids[0]


def test_accumulated_batches_make_one_step(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    """Four batches of two, summed, have the gradient of one batch of eight."""
    norms = []
    for batch, times in ((2, 4), (8, 1)):
        out = tmp_path / f"{batch}"
        llama = str(tiny("llama"))  # it has no dropout of its own, as T5 has
        Run(
            config(
                tiny,
                captions,
                out,
                language=llama,
                batch_size=batch,
                accumulate=times,
                dropout=0.0,
                steps=1,
            )
        ).train()
        norms += [m["grad_norm"] for m in metrics(out) if "grad_norm" in m]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_sample_depends_on_seed_epoch_and_index_alone(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    run = Run(config(tiny, captions, tmp_path / "run"))
    examples = Examples(run.source, run.examples.look, [(16, 16)])
    first = examples[Visit(0, 3)]
    examples[Visit(1, 2)]
    again = examples[Visit(0, 3)]
    assert (first.seed, first.caption) == (again.seed, again.caption)
    assert first.pixels is not None
    assert again.pixels is not None
    assert torch.equal(first.pixels, again.pixels)
    assert examples[Visit(1, 3)].seed != first.seed


def test_one_word_is_swapped_for_another_whatever_the_captions() -> None:
    for captions in (["a red house under a blue sky nothing"], ["", ""], ["cat", "cat"]):
        swapped = swap_word(captions)
        assert all(a != b for a, b in zip(captions, swapped, strict=True))


def test_checkpointed_activations_have_the_same_gradients(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    found = []
    for checkpointing in (False, True):
        out = tmp_path / str(checkpointing)
        Run(config(tiny, captions, out, steps=3, gradient_checkpointing=checkpointing)).train()
        found.append([(m["loss"], m["grad_norm"]) for m in metrics(out) if "loss" in m])
    assert found[1] == [pytest.approx(step, rel=1e-4) for step in found[0]]


def test_min_snr_caps_easy_noise_levels_alone(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, dropout=0.0, device="cpu").eval()
    process = bridge.vision.process
    signal = process.forward.alphas_cumprod  # type: ignore[attr-defined]
    snr = signal / (1 - signal)
    weights = process.weights(torch.arange(len(snr)), 5.0)
    torch.testing.assert_close(weights, torch.where(snr > 5, 5 / snr, torch.ones_like(snr)))
    latents = torch.randn(2, *bridge.vision.latent_shape(16, 16))
    given: dict[str, Any] = {
        "latents": latents,
        "captions": ["a", "b"],
        "noise": torch.randn_like(latents),
    }
    hard = torch.tensor([900, 900])
    assert snr[900] < 5
    assert bridge.loss(**given, timesteps=hard, min_snr=5.0).item() == pytest.approx(
        bridge.loss(**given, timesteps=hard).item()
    )
    flow = Bridge.connect(tiny("t5"), tiny("sana"), rank=2, device="cpu")
    with pytest.raises(BridgeError, match="min_snr is for diffusion models"):
        flow.loss(torch.zeros(1, 3, 32, 32), ["a"], min_snr=5.0)


def test_a_part_at_rate_zero_stands_still(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    run = Run(config(tiny, captions, tmp_path / "run", steps=12, lr_language=0.0))
    before = [p.clone() for p in run.bridge.parts()["language"]]
    run.train()
    after = run.bridge.parts()["language"]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_large_jpegs_are_not_taken_for_small_ones(tmp_path: Path) -> None:
    Image.new("RGB", (256, 256), "red").save(tmp_path / "a.jpg")
    (tmp_path / "c.tsv").write_text("a.jpg\ta\n")
    source = TSV(tmp_path / "c.tsv")
    assert Examples(source, Look(min_size=200), [(16, 16)])[Visit(0, 0)].good
    example = Examples(source, Look(min_size=300), [(16, 16)])[Visit(0, 0)]
    assert "256×256 px, smaller than min_size" in str(example.error)


def test_each_epoch_visits_every_sample_once_in_its_own_order() -> None:
    batches = Order([0] * 20, batch=3, seed=0).batches()
    keys = [key for _ in range(20) for key in next(batches)]  # three epochs
    epochs = [keys[:20], keys[20:40], keys[40:]]
    orders = [[key.index for key in epoch] for epoch in epochs]
    assert [sorted(order) for order in orders] == [list(range(20))] * 3
    assert orders[0] != orders[1]
    assert [{key.number for key in epoch} for epoch in epochs] == [{0}, {1}, {2}]


def test_captions_are_dropped_at_the_rate_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    run = Run(config(tiny, Path("shapes"), tmp_path / "run", caption_dropout=0.3))
    examples = Examples(run.source, run.examples.look, [(16, 16)])
    dropped = sum(examples[Visit(0, i)].caption == "" for i in range(500))
    assert 110 < dropped < 190


def test_few_unreadable_images_are_counted_and_listed_and_many_stop_the_run(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    (captions.parent / "red.png").unlink()
    run = Run(config(tiny, captions, tmp_path / "run", max_bad=0.5, steps=8, validate_every=8))
    trained = run.train()
    assert trained.training_summary["skipped_images"] == 1
    assert "captions.tsv:1: no image" in (tmp_path / "run" / "bad.txt").read_text()
    with pytest.raises(BridgeError, match=r"captions\.tsv:1: no image .*1 of 8 .*max_bad = 0\.01"):
        Run(config(tiny, captions, tmp_path / "strict", steps=8)).train()


def test_a_run_whose_every_image_is_bad_stops_whatever_is_allowed(
    tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    for path in captions.parent.glob("*.png"):
        path.unlink()
    with pytest.raises(BridgeError, match="8 of 8 pictures are unreadable"):
        Run(config(tiny, captions, tmp_path / "run", max_bad=1.0, steps=99)).train()


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True], ids=["warm", "torchrun"])
def test_two_processes_equal_one_at_twice_the_batch(
    tiny: Tiny, captions: Path, tmp_path: Path, torchrun: bool
) -> None:
    """As `torchrun` starts them; an unreadable picture is among the eight."""
    (captions.parent / "red.png").write_bytes(b"")
    runs = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        given: list[object] = [
            "train",
            "--language",
            tiny("llama"),
            "--vision",
            tiny("sd"),
            "--data",
            captions,
            "--out",
            out,
            "--steps",
            10,
            "--batch-size",
            4 // processes,
            "--dropout",
            0,
            "--rank",
            4,
            "--sample-every",
            0,
            "--log-every",
            1,
            "--validate-every",
            0,
            "--max-bad",
            0.5,
            "--lr-language",
            1e-4,
            "--device",
            "cpu",
        ]
        if processes == 1:
            single = lavi_bridge(*given)
            assert single.poll() == 0, single.stderr[-3000:]
            told = single.stdout
        elif not torchrun:
            told = "".join(command.stdout for command in run_distributed(*given))
        else:
            start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
            command = [sys.executable, *start, "-m", "lavi_bridge", *map(str, given)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            told = done.stdout
        assert told.count("done: the bridge is in") == 1
        runs.append((Bridge.load(out), [m["loss"] for m in metrics(out) if "loss" in m]))
    (one, alone), (two, together) = runs
    assert (one.training_summary["processes"], two.training_summary["processes"]) == (1, 2)
    assert len(alone) == 10
    assert together == pytest.approx(alone, abs=1e-5)
    pairs = zip(one.trainable_parameters(), two.trainable_parameters(), strict=True)
    assert max((a - b).abs().max().item() for a, b in pairs) <= 1e-6


@pytest.mark.parametrize(("name", "says"), [("sd-Turbo", {}), ("sd", {"is_distilled": True})])
def test_a_model_distilled_for_few_steps_is_told(
    name: str, says: dict[str, bool], tiny: Tiny, captions: Path, tmp_path: Path
) -> None:
    turbo = tmp_path / name
    shutil.copytree(tiny("sd"), turbo)
    index = json.loads((turbo / "model_index.json").read_text())
    (turbo / "model_index.json").write_text(json.dumps(index | says))
    with pytest.warns(UserWarning, match="seems to be distilled for a few steps"):
        Run(config(tiny, captions, tmp_path / "run", vision=str(turbo)))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"optimizer": "adamw-8bit"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "schedule-free"}, marks=pytest.mark.slow),
        pytest.param({"quantize": "nf4"}, marks=pytest.mark.slow),
        pytest.param({"quantize": "int8", "language": "llama"}, marks=pytest.mark.slow),
        pytest.param({"quantize_vision": "nf4"}, marks=pytest.mark.slow),
        pytest.param({"ema": 0.8}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_it_learns_and_goes_on_exactly_with(
    tiny: Tiny, captions: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    changes = changes | {"language": str(tiny(changes.get("language", "t5")))}
    same = {
        "steps": 24,
        "batch_size": 8,
        "lr_adapter": 3e-3,
        "lr_language": 3e-3,
        "lr_vision": 3e-3,
        "warmup": 0,
        "validate_every": 8,
        **changes,
    }
    straight = Run(config(tiny, captions, tmp_path / "straight", **same)).train()
    Run(config(tiny, captions, tmp_path / "halves", **(same | {"steps": 8}))).train()
    assert Run(config(tiny, captions, tmp_path / "halves", **same)).train().id == straight.id
    losses = [m["probe_loss"] for m in metrics(tmp_path / "straight") if "probe_loss" in m]
    assert losses[-1] < 0.95 * losses[0]
    loaded = Bridge.load(tmp_path / "halves", dtype="float32")
    assert loaded.id == straight.id
    for name in ("quantize", "quantize_vision"):
        assert loaded.training_summary.get(name) == changes.get(name)
    if not changes.keys() & {"quantize", "quantize_vision"}:  # what was validated is what is saved
        run = Run(config(tiny, captions, tmp_path / "again", **same))
        run.validation.bridge = loaded
        assert run.validation.measure()["probe_loss"] == pytest.approx(losses[-1], abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "schedule-free", "ema": 0.9}, "averages by itself"),
        ({"optimizer": "adamw-8bit", "shard": True}, "'shard' cannot spread .* 8 or 4 bits"),
        ({"quantize": "nf4", "shard": True}, "'shard' cannot spread .* 8 or 4 bits"),
        ({"quantize_vision": "int8", "shard": True}, "'shard' cannot spread .* 8 or 4 bits"),
        ({"compile": "graphs", "accumulate": 2}, "compile blocks instead"),
        ({"compile": "graphs", "gradient_checkpointing": True}, "compile blocks instead"),
        ({"text_cache": Path("t"), "language_rank": 0, "shard": True}, "wait for each other"),
    ],
)
def test_settings_that_exclude_each_other_say_so(
    tiny: Tiny, captions: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(BridgeError, match=message):
        config(tiny, captions, tmp_path, **changes)


def test_graphs_are_for_one_process(
    tiny: Tiny, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BridgeError, match=r"for one process .* compile blocks instead"):
        Run(config(tiny, captions, tmp_path, compile="graphs"))


def test_an_extra_that_is_missing_is_named(
    tiny: Tiny, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config(tiny, captions, tmp_path / "run", optimizer="schedule-free"))
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(BridgeError, match=r"pip install 'lavi-bridge\[schedule-free\]'"):
            run.train()
        with pytest.raises(BridgeError, match=r"pip install 'lavi-bridge\[quantize\]'"):
            load_language(locate(tiny("t5")), dtype=torch.float32, quantize="nf4")


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_a_quantized_language_model_is_near_the_whole_one(tiny: Tiny, bits: Quantize) -> None:
    place = locate("zoo:tiny-t5-large")
    whole = load_language(place, dtype=torch.float32).eval()
    small = load_language(place, dtype=torch.float32, quantize=bits).eval()
    ids = whole.tokenize(["a red circle left of a blue square"], 16).ids
    with torch.no_grad():
        expected, found = whole.hidden(ids), small.hidden(ids)
    assert 0 < (found - expected).norm() / expected.norm() < {"int8": 0.05, "nf4": 0.35}[bits]
    held = [sum(p.nbytes for p in side.model.parameters()) for side in (small, whole)]
    assert held[0] < 0.6 * held[1]  # what is left is the table of words


def test_padding_that_no_caption_needs_is_left_out_with_the_same_loss(tiny: Tiny) -> None:
    bridge = Bridge.connect(tiny("t5"), tiny("pixart-alpha"), rank=4, device="cpu")
    told = ["red", "a red wall"]
    latents = torch.randn(2, *bridge.vision.latent_shape(16, 16))
    assert bridge.features(told).hidden.shape[1] == bridge.tokens == 120
    assert bridge.features(told, trim=True).hidden.shape[1] == 16  # 11 bytes
    losses = [
        bridge.loss(
            latents=latents, captions=told, generator=torch.Generator().manual_seed(0), trim=trim
        ).item()
        for trim in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    unmasked = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, device="cpu")
    assert unmasked.features("red", trim=True).hidden.shape[1] == unmasked.tokens == 77


def test_flow_weightings_draw_and_weigh_as_published(tiny: Tiny) -> None:
    """arXiv 2403.03206, section 3.1; 1,000 levels without a shift."""
    process = Flow({"num_train_timesteps": 1000})
    x0 = torch.zeros(20_000, 1, 1, 1)

    def share(weighting: FlowWeighting, low: float) -> float:
        """Of times between `low` and `low` + 0.2."""
        process.weigh_flow(weighting)
        times = process.noise(x0, None, None, torch.Generator().manual_seed(0)).timesteps / 1000
        assert 0 <= times.min() <= times.max() <= 1
        return ((times > low) & (times <= low + 0.2)).float().mean().item()

    assert share("uniform", 0.0) == pytest.approx(0.2, abs=0.01)
    # P(t < 0.2) = Φ(ln 0.25), P(0.4 < t < 0.6) = 2 Φ(ln 1.5) - 1
    assert share("logit-normal", 0.0) == pytest.approx(0.083, abs=0.01)
    assert share("logit-normal", 0.4) == pytest.approx(0.315, abs=0.01)
    # t(1/2 - d) = 1/2 + d - 1.29 (sin(πd) / 2 - d) is 0.6 at d = 0.23
    assert share("mode", 0.4) == pytest.approx(0.46, abs=0.01)
    assert weights(process, "uniform", 0.5) is None
    assert weights(process, "cosmap", 0.5) == pytest.approx(4 / torch.pi)
    assert weights(process, "cosmap", 1.0) == pytest.approx(2 / torch.pi)
    assert weights(process, "sigma-sqrt", 0.5) == 4
    assert weights(process, "sigma-sqrt", 0.0) == pytest.approx(1e6)  # and no more
    bridge = Bridge.connect(tiny("t5"), tiny("sd"), rank=4, device="cpu")
    with pytest.raises(BridgeError, match="flow_weighting cosmap is for flow-matching models"):
        bridge.vision.process.weigh_flow("cosmap")


def weights(process: Flow, weighting: FlowWeighting, time: float) -> float | None:
    process.weigh_flow(weighting)
    found = process.weights(torch.tensor([1000 * time]))
    return None if found is None else found.item()


def test_a_finished_run_is_not_overwritten(tiny: Tiny, captions: Path, tmp_path: Path) -> None:
    Run(config(tiny, captions, tmp_path / "run", steps=1, save_every=0)).train()
    with pytest.raises(BridgeError, match="already holds a finished bridge"):
        Run(config(tiny, captions, tmp_path / "run", steps=1)).train()


def test_data_that_is_not_there_says_what_may_be_given(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(
        BridgeError, match=r"no data 'nowhere': give a caption file \(\.tsv\), a folder"
    ):
        Run(config(tiny, Path("nowhere"), tmp_path / "run"))


def test_the_paper_recipe_drops_lora_outputs_and_no_captions(
    captions: Path, tiny: Tiny, tmp_path: Path
) -> None:
    from lavi_bridge.cli.train import train_config

    flags = [
        "--recipe",
        "paper",
        "--language",
        str(tiny("t5")),
        "--vision",
        str(tiny("sd")),
        "--data",
        str(captions),
        "--out",
        str(tmp_path / "run"),
        "--steps",
        "1",
    ]
    run = Run(train_config(flags))
    assert run.bridge.language.lora is not None
    assert run.bridge.language.lora.dropout == 0.1
    assert run.config.caption_dropout == 0
    assert run.bridge.adapter.dropout == 0.1


# ---- the command line, with real input


@pytest.mark.slow
def test_photos_and_a_real_language_model_train_from_the_command_line(
    shared: Path, tiny: Tiny, tmp_path: Path
) -> None:
    """5,421 photos of groceries by their TSV, and karpathy's stories260K, a real Llama."""
    import tarfile

    with tarfile.open(shared / "images" / "grocery.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "config.yaml").write_text(
        f"language: {shared / 'weights' / 'stories260K' / 'hf'}\nvision: {tiny('sd')}\n"
        f"data: {tmp_path / 'grocery' / 'captions_train.tsv'}\n"
        "rank: 8\nbatch_size: 8\nwarmup: 5\nsample_every: 40\nsample_steps: 4\nresolution: 32\n"
        "lr_adapter: 2e-3\nlr_language: 1e-3\nlr_vision: 2e-3\n"
    )
    out = tmp_path / "run"
    done = lavi_bridge("train", tmp_path / "config.yaml", "--out", out, "--steps", 40)
    assert done.poll() == 0, done.stderr[-2000:]
    first, last = [m["val_loss"] for m in metrics(out) if "val_loss" in m]
    assert last < 0.97 * first  # the same noise, the same timesteps
    assert len(list((out / "samples").glob("*.png"))) == 2
    drawn = lavi_bridge(
        "generate", out, "a photo of an apple", "--steps", 2, "--out", tmp_path / "png"
    )
    assert drawn.poll() == 0, drawn.stderr[-2000:]
    assert Path(drawn.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("tokenizer", "family"),
    [
        ("clip_hf", "clip_text_model"),
        ("t5_v1", "t5"),
        ("bert_uncased", "bert"),
        ("qwen3", "qwen3"),
        ("mistral_v1", "mistral"),
    ],
)
def test_real_tokenizers_meet_small_models(
    shared: Path, tiny: Tiny, tmp_path: Path, tokenizer: str, family: str
) -> None:
    import shutil

    import transformers

    folder = tmp_path / "model"
    class_name, settings = testing.LANGUAGES[family]
    vocabulary = 151_936 if tokenizer == "qwen3" else 50_000
    model_config = transformers.AutoConfig.for_model(
        family, **settings | {"vocab_size": vocabulary}
    )
    getattr(transformers, class_name)(model_config).save_pretrained(folder)
    for file in (shared / "tokenizers" / tokenizer).iterdir():
        if file.name != "config.json":
            shutil.copy(file, folder / file.name)
    bridge = Bridge.connect(folder, tiny("pixart-alpha"), rank=2)
    text = bridge.encode(["a photo of a red apple", ""])
    assert text.hidden.isfinite().all()
    assert text.mask is not None
    assert (text.mask[:, 0] == 1).all()  # even an empty prompt keeps one real token
    assert 4 < int(text.mask[0].sum()) < 12
    bridge.loss(torch.zeros(1, 3, 16, 16), ["a photo of a red apple"]).backward()


def test_a_sample_grid_that_is_not_a_number_is_left_out_and_training_goes_on(
    tiny: Tiny, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(config(tiny, captions, tmp_path / "run", sample_every=2, cache=tmp_path / "cache"))
    torch.nn.init.constant_(run.bridge.vision.vae.decoder.conv_out.bias, torch.inf)
    run.train()
    told = [x for x in capsys.readouterr().out.splitlines() if x.startswith("no sample grid")]
    assert [x.partition(":")[0] for x in told] == [f"no sample grid at step {n}" for n in (0, 2, 4)]
    assert "the picture of 'a red wall' is not a number; " in told[0]
    assert not (tmp_path / "run" / "samples").exists()
    assert len(metrics(tmp_path / "run")) >= 4


@pytest.mark.parametrize("caption", ['it\'s a "red" wall, $5', "-1 walls", "a wall"])
def test_the_command_that_is_told_at_the_end_works_when_it_is_pasted(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
    caption: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    captions.write_text(f"red.png\t{caption}\n")
    monkeypatch.chdir(tmp_path)
    given = [
        "train",
        "--language",
        tiny("t5"),
        "--vision",
        tiny("sd"),
        "--data",
        captions,
        "--out",
        "my run",
        "--rank",
        2,
        "--steps",
        1,
        "--batch-size",
        1,
        "--sample-every",
        0,
        "--validate-every",
        0,
        "--save-every",
        0,
        "--tracker",
        "none",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", *map(str, given)])
    cli.main()
    told = shlex.split(capsys.readouterr().out.splitlines()[-1])
    told[2:2] = ["--steps", "1", "--device", "cpu", "--out", "png"]
    monkeypatch.setattr(sys, "argv", told)
    cli.main()
    [picture] = (tmp_path / "png").glob("*.png")
    record = read_record(picture)
    assert record is not None
    assert record["prompt"] == caption
