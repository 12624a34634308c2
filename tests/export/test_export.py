"""Exported folders: they draw what the bridge draws, and hold nothing of this machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lavi_bridge import Bridge
from lavi_bridge.export import Form
from tests.export import alone, jobs
from tests.visions import checks

Tiny = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings(
    # diffusers' own, where a stock pipeline is handed another class of text encoder
    "ignore:.*:DeprecationWarning",
)


def off(bridge: Bridge, folder: Path, form: Form, *, servers: bool = True) -> int:
    """Grey levels between a bridge's pictures and those of its export, at most."""
    told = jobs.job(bridge, folder, form, servers=servers)
    pipe = alone.load(told["folder"], told["servers"])
    assert pipe.components
    found = alone.draw(pipe, told["prompts"], told["seed"], told["options"])
    return int(np.abs(found - np.array(told["expected"])).max())


@pytest.mark.parametrize("vision", jobs.FAMILIES)
def test_a_merged_folder_draws_what_the_bridge_draws(
    vision: str, tiny: Tiny, tmp_path: Path
) -> None:
    bridge = jobs.trained(tiny("t5"), tiny(vision))
    assert checks.moved_by_prompt(bridge) > 8
    assert off(bridge, tmp_path / "out", "merged") <= 1
