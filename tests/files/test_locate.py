"""Where models are: folders, the zoo, and Hub ids, served here from the Hub's own cache."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.files.locate import hub_name, locate
from tests import hub as stand_in

Tiny = Callable[[str], Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(home: Path, name: str, folder: Path, *, ref: str | None = COMMIT) -> Path:
    """Put a model into a Hub cache as a download would have; without a `ref` as a copy might."""
    repository = home / "hub" / f"models--me--{name}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    if ref is not None:
        (repository / "refs" / "main").write_text(ref)
    return repository


def join(language: str, out: Path) -> list[str]:
    """Join it with `me/sd`, save, load, and tell what the folder remembers of it."""
    bridge = Bridge.connect(language, "me/sd", rank=2, device="cpu", dtype="float32")
    bridge.save(out)
    assert Bridge.load(out, device="cpu", dtype="float32").id == bridge.id
    record = json.loads((out / "bridge.json").read_text(encoding="utf-8"))
    return [record["language"]["id"], record["language"]["revision"]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache of this process, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def silent(told: str) -> bool:
    """Nothing is told of the Hub where its cache serves."""
    return not re.search("hub|deprecated|warn", told, re.IGNORECASE)


@pytest.mark.parametrize(
    "use",
    [
        "from lavi_bridge.files.locate import locate\n"
        "assert [locate(f'me/{name}').commit() for name in ('t5', 'sd')]",
        pytest.param(
            "import sys; from pathlib import Path; from tests.files.test_locate import join\n"
            "assert join('me/t5', Path(sys.argv[1]))[1]",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["found", "joined"],
)
def test_a_hub_id_is_served_from_where_hf_home_says(tiny: Tiny, tmp_path: Path, use: str) -> None:
    """In an interpreter of its own, as huggingface_hub reads the variable once."""
    for name in ("t5", "sd"):
        cached(tmp_path, name, tiny(name))
    done = subprocess.run(
        [sys.executable, "-c", use, str(tmp_path / "out")],
        env=os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert silent(done.stderr)


@pytest.mark.parametrize(
    ("language", "ref", "suffix"),
    [
        ("me/t5", COMMIT, ".safetensors"),
        (f"me/t5@{COMMIT}", COMMIT, ".safetensors"),
        ("me/t5", None, ".fp16.safetensors"),  # copied by hand, and only a variant there
    ],
    ids=["main", "commit", "no main"],
)
def test_hub_ids_are_joined_saved_and_loaded_without_a_network(
    tiny: Tiny,
    hub: Path,
    language: str,
    ref: str | None,
    suffix: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("t5", "sd"):
        repository = cached(hub, name, tiny(name), ref=ref)
        for path in repository.rglob("*.safetensors"):
            path.rename(path.with_suffix(suffix))
    # the branch may move, so the bridge remembers the commit
    assert join(language, hub / "out") == [language, COMMIT]
    assert silent(capfd.readouterr().err)
    card = (hub / "out" / "README.md").read_text()
    assert "- me/t5\n" in card
    assert "- me/sd\n" in card


def test_a_text_encoder_inside_a_hub_pipeline_finds_its_tokenizer_beside(
    tiny: Tiny, hub: Path
) -> None:
    """The paper's CLIP row: `CompVis/stable-diffusion-v1-4/text_encoder`."""
    pipeline = shutil.copytree(tiny("sd"), hub / "pipeline")
    clip = tiny("clip_text_model")
    for folder, pattern in (("text_encoder", "[cm]o*"), ("tokenizer", "tokenizer*")):
        (pipeline / folder).mkdir()
        for path in clip.glob(pattern):
            shutil.copy(path, pipeline / folder)
    cached(hub, "sd", pipeline)
    assert join("me/sd/text_encoder", hub / "out") == ["me/sd/text_encoder", COMMIT]


def test_of_several_commits_without_a_main_one_must_be_named(tiny: Tiny, hub: Path) -> None:
    repository = cached(hub, "t5", tiny("t5"), ref=None)
    other = COMMIT[::-1]
    shutil.copytree(tiny("t5"), repository / "snapshots" / other)
    with pytest.raises(BridgeError, match=f"does not say .* 'main'; name one.*: me/t5@{COMMIT}"):
        locate("me/t5").json("config.json")
    with pytest.raises(BridgeError, match=f"is 'v2'; name one .*me/t5/encoder@{other}"):
        locate("me/t5/encoder@v2").json("config.json")
    assert locate(f"me/t5@{other}").commit() == other
    (repository / "refs" / "main").write_text(f"{other}\r\n")
    assert locate("me/t5").commit() == other


def test_a_branch_that_was_copied_with_a_line_end_is_found(tiny: Tiny, hub: Path) -> None:
    repository = cached(hub, "t5", tiny("t5"))
    (repository / "refs" / "v2").write_text(f"{COMMIT}\n")
    assert locate("me/t5@v2").commit() == COMMIT


def test_a_file_that_a_cached_model_never_had_is_simply_not_there(tiny: Tiny, hub: Path) -> None:
    cached(hub, "t5", tiny("t5"))
    assert locate("me/t5").file("model_index.json") is None
    with pytest.raises(BridgeError, match=r"'me/t5' has no model_index\.json"):
        locate("me/t5").json("model_index.json")
    with pytest.raises(BridgeError, match="'me/other' is no folder here, and the Hub cannot"):
        locate("me/other").json("config.json")


@pytest.mark.parametrize("status", [401, 403], ids=["not logged in", "licence not accepted"])
def test_a_gated_model_says_where_its_licence_is(status: int) -> None:
    """Of a hub on this machine, which answers as the Hub does; asked by an interpreter of its own,
    as huggingface_hub reads the address once."""

    code = "from lavi_bridge.files.locate import locate; locate('me/closed').json('config.json')"
    with stand_in.serve() as served:
        served.gated["me/closed"] = status
        here = {"HF_ENDPOINT": served.address, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | here,
            capture_output=True,
            text=True,
            check=False,
        )
    assert re.search(
        r"BridgeError: 'me/closed' is gated: accept its licence at "
        r"https://huggingface\.co/me/closed, then `hf auth login`",
        done.stderr.splitlines()[-1],
    ), done.stderr[-2000:]


def test_all_files_of_a_hub_model_are_of_the_commit_of_its_config(tiny: Tiny, hub: Path) -> None:
    cached(hub, "sd", tiny("sd"))
    assert (locate("me/sd") / "unet").pretrained() == {
        "pretrained_model_name_or_path": "me/sd",
        "subfolder": "unet",
        "revision": COMMIT,
    }
    assert locate(tiny("sd")).pretrained()["revision"] is None


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


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("CompVis/sd/text_encoder@main", "CompVis/sd"),
        ("zoo:tiny-sd/text_encoder", None),
        ("pip:models/small", None),
        ("/models/sd", None),
        ("C:/models/sd", None),
    ],
)
def test_a_model_has_a_name_on_the_hub_or_none(source: str, name: str | None) -> None:
    assert hub_name(source) == name


@pytest.mark.parametrize("source", ["", "nosuch", "./nosuch/model", "/nosuch/model", "a b/c"])
def test_what_cannot_be_a_model_is_refused_at_once(source: str) -> None:
    with pytest.raises(BridgeError):
        locate(source)


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BridgeError, match=r"config\.json is not valid JSON"):
        locate(tmp_path).json("config.json")


def test_json_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(BridgeError, match=r"config\.json holds no JSON object, but a list"):
        locate(tmp_path).json("config.json")
