"""What the tables would cost with real models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.reproduce.planning import TFLOPS, plan, table
from lavi_bridge.reproduce.rows import LANGUAGES, VISIONS, rows_of
from lavi_bridge.reproduce.run import _agreed, reproduce
from tests import real
from tests.reproduce.made import settings, stand_ins


@pytest.mark.slow
def test_the_full_plan_needs_configs_alone(
    tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {"ldm": "ldm", "sd": "sd", "pixart": "pixart-alpha"}
    models = [f"{VISIONS[name].full}={tiny(kind)}" for name, kind in kinds.items()]
    models.append(f"{LANGUAGES['t5-large'].full}={tiny('t5')}")
    config = settings(tmp_path, "visions", full=True, models=models)
    assert reproduce(replace(config, dry_run=True)) is None
    told = capsys.readouterr().out
    for row in rows_of(["visions"], full=True):
        assert f"\n{row.slug} " in f"\n{told}"
    assert "6 rows, 3 seeds of each that is trained, 27,325 images a row and seed" in told
    assert "GPU-hours of one H200" in told
    assert not (tmp_path / "settings.json").exists()


def test_full_starts_neither_without_data_nor_unasked(tmp_path: Path) -> None:
    config = settings(tmp_path, "visions", full=True, models=stand_ins())
    with pytest.raises(BridgeError, match=r"give --data"):
        reproduce(config)
    with pytest.raises(BridgeError, match=r"add --yes, or call it from a terminal"):
        _agreed(replace(config, data="captions.tsv"), True)
    assert _agreed(replace(config, data="captions.tsv", yes=True), True)


@pytest.mark.large
def test_the_plan_of_the_real_sizes(tmp_path: Path) -> None:
    models = [
        f"CompVis/stable-diffusion-v1-4={real.stable_diffusion(tmp_path / 'sd')}",
        f"google-t5/t5-large={real.language(tmp_path / 't5', real.T5_LARGE)}",
        f"PixArt-alpha/PixArt-XL-2-512x512={real.pixart(tmp_path / 'pixart')}",
        f"CompVis/ldm-text2im-large-256={real.stable_diffusion(tmp_path / 'ldm')}",
    ]
    config = settings(tmp_path, "visions", full=True, models=models, seeds=1, batch_size=32)
    rows = {p.row.slug: p for p in plan(config)}
    whole = rows["t5-large-sd-paper"]
    assert whole.trained == pytest.approx(55.84e6, rel=0.001)
    # 50,000 steps of 32 images at 18.2 images/s
    assert whole.training_hours == pytest.approx(50_000 * 32 / 18.2 / 3600, rel=0.02)
    assert TFLOPS["float32"] < TFLOPS["bfloat16"]
    assert "55.8 M" in table(config, list(rows.values()))
