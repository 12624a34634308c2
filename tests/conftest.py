"""What the tests share: tiny models in the real layouts, made once a session."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models run faster on one thread
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a hub
if "gpu" not in " ".join(sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the expectations are those of float32 on a CPU
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavi_bridge import testing

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny("t5")`, `tiny("sd")` …: the folder of a tiny random model, made on first use."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            make = testing.make_language if name in testing.LANGUAGES else testing.make_vision
            make(path, name)
        return path

    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files beside the project; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs the real files of {SHARED.parent.name}/{SHARED.name} beside the project"
        )
    return SHARED
