"""The paper's adapter: its middle width, and that what was saved keeps the one it had."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from lavi_bridge.adapters import ADAPTERS, Adapter, base
from lavi_bridge.files.locate import locate


def made(width_in: int, width_out: int) -> Adapter:
    with torch.device("meta"):
        return ADAPTERS["feedforward"].fresh(width_in, width_out)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("language", [512, 768, 1024, 2048, 4096])
@pytest.mark.parametrize("vision", [768, 1024, 4096])
def test_for_the_widths_of_the_paper_it_is_halfway(language: int, vision: int) -> None:
    adapter = made(language, vision)
    assert adapter.inner == (language + vision) // 2
    assert "inner_dim" not in adapter.config()


@pytest.mark.parametrize(("vision", "millions"), [(15_360, 480), (30_720, 732)])
def test_for_very_wide_texts_it_stays_small(vision: int, millions: int) -> None:
    adapter = made(2560, vision)
    assert adapter.inner == 4096
    assert parameters(adapter) / 1e6 == pytest.approx(millions, abs=1)
    assert adapter.config()["inner_dim"] == 4096


def test_it_is_loaded_with_the_width_that_it_was_saved_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ADAPTERS["feedforward"](24, 40)
    monkeypatch.setattr(base, "WIDEST", 8)
    capped = ADAPTERS["feedforward"].fresh(24, 40)
    assert parameters(capped) < parameters(whole) / 2
    whole.save(tmp_path / "whole")  # as saved before there was a cap
    capped.save(tmp_path / "capped")
    assert "inner_dim" not in json.loads((tmp_path / "whole" / "config.json").read_text())
    hidden = torch.randn(1, 3, 24)
    for adapter, name in ((whole, "whole"), (capped, "capped")):
        again = Adapter.load(locate(tmp_path / name))
        assert torch.equal(again.eval()(hidden), adapter.eval()(hidden))
