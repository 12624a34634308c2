"""What the tests share: tiny models in the real layouts, made once a session."""

import gc
import os
import shutil
import sys
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models run faster on one thread
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a hub
if "gpu" not in " ".join(sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the expectations are those of float32 on a CPU
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# code of exported folders is copied there before it runs: one for each process, as names repeat
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="modules-")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lavi_bridge import testing

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "data"


TOGETHER = {
    "tests/docs/test_code.py",
    "tests/evaluate/test_evaluate.py",
    "tests/publish/test_scores.py",
    "tests/reproduce/test_work.py",
    "tests/running/test_lock.py",
    "tests/zoo/test_demo.py",
}
"""Files whose tests share what takes long to make: one worker has them all."""


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)


@pytest.hookimpl(optionalhook=True)  # with pytest-xdist alone
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker the next test, or the next whole file of TOGETHER, which come first."""
    from xdist.scheduler import LoadScopeScheduling

    class ByTest(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in TOGETHER else nodeid

    return ByTest(config, log)


def pytest_collection_finish() -> None:
    """Collect garbage more rarely, and leave out what has been imported: a sixth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


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
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`whole("sdxl")`: the folder of a tiny image model with its own text encoders."""
    root = tmp_path_factory.mktemp("pipelines")

    def folder(name: str) -> Path:
        path = root / name
        if not path.exists():
            testing.add_encoders(testing.make_vision(path, name), name)
        return path

    return folder


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`judges("qwen3_vl")`: the folder of a tiny random image-and-text model."""
    root = tmp_path_factory.mktemp("judges")

    def folder(name: str) -> Path:
        path = root / name
        return path if path.exists() else testing.make_judge(path, name)

    return folder


@pytest.fixture(scope="module")
def few() -> Iterator[None]:
    """Fewer captions and pictures for a warm start: they take most of its time, and count little.

    For the rest of a file, once asked for, and in this process alone.
    """
    from lavi_bridge.shapes.world import ShapesWorld
    from lavi_bridge.train.warm_start import predictions

    captions = ShapesWorld.plain_captions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ShapesWorld,
            "plain_captions",
            lambda self, count: captions(self, min(count, 2000)),
        )
        patch.setattr(predictions, "BANK", 16)
        patch.setattr(predictions, "BANK_STEPS", 3)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real files beside the project; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs the real files of {SHARED.parent.name}/{SHARED.name} beside the project"
        )
    return SHARED
