"""Real sizes with random weights, in the Hub's layout: run by name with `pytest -m large`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import real

LIMIT_GB = 12

RUN = """
import json, resource, sys, time
import torch
from lavi_bridge import Bridge

language, vision = sys.argv[1:]
bridge = Bridge.connect(language, vision, dtype="float32", device="cpu")
bridge.train()
optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-4)
start = time.perf_counter()
loss = bridge.loss(torch.rand(1, 3, 512, 512) * 2 - 1, ["a photo of a red apple"],
                   generator=torch.Generator().manual_seed(0))
loss.backward()
optimizer.step()
optimizer.zero_grad()
trained = time.perf_counter() - start
picture = bridge.generate("a photo of a red apple", steps=2)[0]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"loss": loss.item(), "size": picture.size, "step_s": trained, "peak_gb": peak,
                  "parts": {k: sum(p.numel() for p in v) for k, v in bridge.parts().items()}}))
"""


def fill(folder: Path, kind: type, config: dict[str, object]) -> None:
    """Write random half-precision weights of a diffusers class beside its config."""
    kind.from_config(config).half().save_pretrained(folder)  # type: ignore[attr-defined]


@pytest.mark.large
def test_sd_and_t5_large_train_and_sample_at_512_px_within_12_gb(tmp_path: Path) -> None:
    import transformers
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from lavi_bridge.testing import make_tokenizer

    torch.manual_seed(0)
    sd = real.stable_diffusion(tmp_path / "sd")
    fill(sd / "unet", UNet2DConditionModel, real.SD_UNET)
    fill(sd / "vae", AutoencoderKL, real.VAE)
    t5 = tmp_path / "t5"
    config = transformers.AutoConfig.for_model(**real.T5_LARGE)
    transformers.T5EncoderModel(config).half().save_pretrained(t5)
    make_tokenizer(t5)

    done = subprocess.run(
        [sys.executable, "-c", RUN, str(t5), str(sd)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["size"] == [512, 512]
    assert 0 < report["loss"] < 10
    assert report["parts"]["vision"] == pytest.approx(28.3e6, rel=0.001)
    assert report["peak_gb"] < LIMIT_GB


XL_LIMIT_GB = 20
XL_RUN = """
import json, resource, sys, time
import torch
from lavi_bridge import Bridge

language, vision = sys.argv[1:]
bridge = Bridge.connect(language, vision, dtype="bfloat16", device="cpu")
bridge.checkpoint_activations()
bridge.train()
optimizer = torch.optim.AdamW(bridge.trainable_parameters(), lr=1e-4)
start = time.perf_counter()
loss = bridge.loss(torch.rand(1, 3, 512, 512) * 2 - 1, ["a photo of a red apple"],
                   generator=torch.Generator().manual_seed(0))
loss.backward()
optimizer.step()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"loss": loss.item(), "step_s": time.perf_counter() - start, "peak_gb": peak,
                  "layers": sum("lora_A" in n for n, _ in bridge.vision.named_parameters()),
                  "parts": {k: sum(p.numel() for p in v) for k, v in bridge.parts().items()}}))
"""


@pytest.mark.large
def test_sdxl_trains_at_512_px_in_bfloat16_within_20_gb(tmp_path: Path) -> None:
    """One step of the real U-Net (2.57 B), checkpointed, from the features of a tiny T5."""
    import diffusers

    from lavi_bridge.testing import make_language

    folder = real.today(tmp_path / "sdxl", "sdxl")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)  # 5 GB instead of 10, and twice that while it is saved
    try:
        for part in ("unet", "vae"):
            config = json.loads((folder / part / "config.json").read_text())
            kind = getattr(diffusers, config["_class_name"])
            kind.from_config(config).save_pretrained(folder / part)
    finally:
        torch.set_default_dtype(torch.float32)
    make_language(tmp_path / "t5", "t5")
    done = subprocess.run(
        [sys.executable, "-c", XL_RUN, str(tmp_path / "t5"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert report["layers"] == 692
    assert 0 < report["loss"] < 10
    assert report["peak_gb"] < XL_LIMIT_GB


@pytest.mark.large
def test_the_demo_reaches_its_bars(tmp_path: Path) -> None:
    """What `make demo` promises, in full: some minutes on two cores; needs MiniLM's package."""
    from lavi_bridge.zoo import demo

    demo.run(tmp_path / "demo")
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())
    exact = {(row["name"], row["prompts"]): row["exact"]["all"] for row in scores["rows"]}
    assert scores["prompts"] >= 96
    assert exact["own encoder", "plain"] >= 0.45
    assert exact["own encoder", "free"] <= 0.05
    assert exact["MiniLM", "free"] >= 0.6 * exact["own encoder", "plain"]
    assert exact["MiniLM", "free"] > exact["small Llama", "free"]
