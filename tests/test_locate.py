"""Where models are: folders, the zoo, and Hub ids, served here from the Hub's own cache."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.locate import locate

Tiny = Callable[[str], Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

JOIN = """
import json, sys
from lavi_bridge import Bridge

bridge = Bridge.connect(sys.argv[1], "me/sd", rank=2, device="cpu", dtype="float32")
bridge.save(sys.argv[2])
record = json.load(open(sys.argv[2] + "/bridge.json"))
assert Bridge.load(sys.argv[2], device="cpu", dtype="float32").id == bridge.id
print(json.dumps([record["language"]["id"], record["language"]["revision"]]))
"""


def cached(home: Path, name: str, folder: Path) -> None:
    """Put a model into a Hub cache as a download would have."""
    repository = home / "hub" / f"models--me--{name}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def join(home: Path, language: str, out: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", JOIN, language, str(out)], env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip


@pytest.mark.parametrize("language", ["me/t5", f"me/t5@{COMMIT}"])
def test_hub_ids_are_joined_saved_and_loaded_without_a_network(
    tiny: Tiny, tmp_path: Path, language: str
) -> None:
    cached(tmp_path, "t5", tiny("t5"))
    cached(tmp_path, "sd", tiny("sd"))
    done = join(tmp_path, language, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    # the branch may move, so the bridge remembers the commit
    assert json.loads(done.stdout.splitlines()[-1]) == [language, COMMIT]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- me/t5\n" in card
    assert "- me/sd\n" in card


def test_a_text_encoder_inside_a_hub_pipeline_finds_its_tokenizer_beside(
    tiny: Tiny, tmp_path: Path
) -> None:
    """The paper's CLIP row: `CompVis/stable-diffusion-v1-4/text_encoder`."""
    pipeline = shutil.copytree(tiny("sd"), tmp_path / "pipeline")
    clip = tiny("clip_text_model")
    for folder, pattern in (("text_encoder", "[cm]o*"), ("tokenizer", "tokenizer*")):
        (pipeline / folder).mkdir()
        for path in clip.glob(pattern):
            shutil.copy(path, pipeline / folder)
    cached(tmp_path, "sd", pipeline)
    done = join(tmp_path, "me/sd/text_encoder", tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("source", "root", "revision", "subfolder"),
    [
        ("google-t5/t5-large", "google-t5/t5-large", None, ""),
        ("google-t5/t5-large@v1.1", "google-t5/t5-large", "v1.1", ""),
        ("CompVis/sd/text_encoder@main", "CompVis/sd", "main", "text_encoder"),
    ],
)
def test_a_hub_id_may_carry_a_subfolder_and_a_revision(
    source: str, root: str, revision: str | None, subfolder: str
) -> None:
    place = locate(source)
    assert (place.root, place.revision, place.subfolder) == (root, revision, subfolder)
    assert place.id == source
    again = locate((place / "unet").id)
    assert (again.root, again.revision) == (root, revision)
    assert again.subfolder == f"{subfolder}/unet".strip("/")


@pytest.mark.parametrize("source", ["", "nosuch", "./nosuch/model", "/nosuch/model", "a b/c"])
def test_what_cannot_be_a_model_is_refused_at_once(source: str) -> None:
    with pytest.raises(BridgeError):
        locate(source)


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BridgeError, match=r"config\.json is not valid JSON"):
        locate(tmp_path).json("config.json")
