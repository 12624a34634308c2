"""Publishing, against a stand-in of the Hub on this machine and with the real client."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.drawing import read_record
from lavi_bridge.export import Form, export_bridge
from lavi_bridge.publish import source
from lavi_bridge.publish.hub import look, send, told
from lavi_bridge.publish.options import PushConfig
from lavi_bridge.publish.push import Pushed, push
from tests import hub as stand_in
from tests.hub import Hub, Repository

# huggingface_hub's own, where hf_xet is not used
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Tiny = Callable[[str], Path]
NAME = "me/t5-sd"
FILES = [
    "README.md",
    "adapter/config.json",
    "adapter/diffusion_pytorch_model.safetensors",
    "bridge.json",
    "config.json",
    "language_lora/adapter_config.json",
    "language_lora/adapter_model.safetensors",
    "vision_lora/adapter_config.json",
    "vision_lora/adapter_model.safetensors",
]
"""Of a bridge without pictures."""
SAMPLES = ["samples/00.png", "samples/01.png"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its bridge, and with much that is nobody's business."""
    run = tmp_path_factory.mktemp("runs") / "t5"
    bridge = Bridge.connect("zoo:tiny-t5-small", "zoo:tiny-sd", rank=2, device="cpu")
    bridge.training_summary = {"data": "/home/someone/captions.tsv", "steps": 20}
    bridge.save(run / "bridge")
    (run / "bridge" / "notes.txt").write_text("mine")
    (run / "bridge" / "adapter" / ".lock").touch()
    (run / "bridge" / "adapter" / "notes.txt").touch()
    (run / "step-000010").mkdir()
    (run / "step-000010" / "state.pt").write_bytes(b"state")
    (run / ".lock").write_text("{}")
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 21)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    settings = {"recipe": "default", "data": "~/captions.tsv", "steps": 20, "out": str(run)}
    (run / "config.json").write_text(json.dumps(settings | {"cache": "/mnt/cache", "seed": 0}))
    return run


@pytest.fixture
def bridge(saved: Path) -> Path:
    return saved / "bridge"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, as this process's Hub, with a token of `me` and an empty cache."""
    with stand_in.in_its_place(tmp_path / "cache") as served:
        yield served


def pushed(folder: Path, name: str = NAME, **settings: Any) -> Pushed:
    """Push without pictures, as most tests do."""
    given: dict[str, Any] = {"samples": 0, "device": "cpu"} | settings
    return push(PushConfig(str(folder), name, **given))


def drawn(folder: Path, name: str = NAME, **settings: Any) -> Pushed:
    """Push with two pictures in two steps."""
    from lavi_bridge.config import Sampling

    return pushed(folder, name, samples=2, sampling=Sampling(steps=2, seed=5), **settings)


# ---- what is sent


def test_a_pushed_bridge_is_loaded_by_its_name_and_draws_the_same_picture(
    bridge: Path, hub: Hub
) -> None:
    done = pushed(bridge)
    assert sorted(hub.repositories[NAME].files) == FILES == list(done.files)
    assert hub.repositories[NAME].commits == [f"Bridge {Bridge.load(bridge).id}"]
    assert done.sent is not None
    assert done.sent.new
    ours, theirs = Bridge.load(bridge, device="cpu"), Bridge.load(NAME, device="cpu")
    pictures = [each.generate(["two stars"], steps=2, seed=1)[0] for each in (ours, theirs)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert f"HEAD /{NAME}/resolve/main/config.json" in hub.asked  # by which downloads are counted


def test_a_dry_run_writes_what_a_push_sends(saved: Path, hub: Hub, tmp_path: Path) -> None:
    done = drawn(saved, dry_run=tmp_path / "look")
    assert hub.asked == []
    look = {
        path.relative_to(tmp_path / "look").as_posix(): path.read_bytes()
        for path in (tmp_path / "look").rglob("*")
        if path.is_file()
    }
    assert done.files == {name: len(data) for name, data in look.items()}
    drawn(saved)
    assert hub.repositories[NAME].files == look
    assert sorted(look) == sorted([*FILES, *SAMPLES, "curves.png", "recipe.yaml"])


def test_the_same_push_again_makes_no_commit(saved: Path, hub: Hub) -> None:
    first, again = drawn(saved), drawn(saved)
    assert first.sent is not None
    assert again.sent is not None
    assert (again.sent.new, again.sent.commit) == (False, first.sent.commit)
    assert len(hub.repositories[NAME].commits) == 1


def test_what_an_earlier_push_left_goes_and_what_others_added_stays(
    saved: Path, bridge: Path, hub: Hub
) -> None:
    hub.repositories[NAME] = Repository(files={"LICENSE": b"text", ".gitattributes": b"x"})
    drawn(saved)
    hub.repositories[NAME].files["poster.png"] = b"by hand"
    pushed(bridge, message="No pictures")
    left = hub.repositories[NAME].files
    assert sorted(left) == sorted([*FILES, ".gitattributes", "LICENSE", "poster.png"])
    assert hub.repositories[NAME].commits[-1] == "No pictures"


def test_samples_say_prompt_seed_and_settings(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red | circle\ntwo stars\na third\n")
    drawn(saved, dry_run=tmp_path / "look", prompts=tmp_path / "prompts.txt")
    record = read_record(tmp_path / "look" / "samples" / "01.png")
    assert record is not None
    assert (record["prompt"], record["seed"], record["steps"]) == ("two stars", 6, 2)
    text = (tmp_path / "look" / "README.md").read_text()
    assert "| ![a red \\| circle](samples/00.png) | ![two stars](samples/01.png) |" in text
    assert "a red \\| circle (seed 5)" in text
    assert "drawn with 2 steps, guidance 7.5" in text
    with Image.open(tmp_path / "look" / "samples" / "00.png") as shown:
        assert shown.size == (192, 192)  # of 32 pixels
    card = ModelCard(text)
    assert card.data.widget[1] == {"text": "two stars", "output": {"url": "samples/01.png"}}


def test_a_run_brings_its_recipe_and_curves(saved: Path, tmp_path: Path) -> None:
    pushed(saved, dry_run=tmp_path / "look")
    recipe = yaml.safe_load((tmp_path / "look" / "recipe.yaml").read_text())
    assert recipe == {"recipe": "default", "data": "captions.tsv", "steps": 20, "seed": 0}
    with Image.open(tmp_path / "look" / "curves.png") as curves:
        assert curves.width > 500
    text = (tmp_path / "look" / "README.md").read_text()
    assert "![Loss by step](curves.png)" in text
    assert "- data: captions.tsv\n" in text


def test_an_older_record_gets_its_licences_from_the_card_and_its_counts_from_the_weights(
    bridge: Path, tmp_path: Path
) -> None:
    pushed(bridge, dry_run=tmp_path / "new")
    older = shutil.copytree(bridge, tmp_path / "older")
    record = json.loads((older / "bridge.json").read_text())
    del record["parameters"], record["language"]["licence"], record["vision"]["licence"]
    (older / "bridge.json").write_text(json.dumps(record))
    pushed(older, dry_run=tmp_path / "look")
    cards = [(tmp_path / name / "README.md").read_text() for name in ("new", "look")]
    assert cards[0] == cards[1]
    assert "| vision | " in cards[0]


# ---- nothing of this machine


def test_a_base_model_that_is_a_folder_needs_a_name_on_the_hub(
    tiny: Tiny, hub: Hub, tmp_path: Path
) -> None:
    joined = Bridge.connect(tiny("t5"), "zoo:tiny-sd", rank=2, device="cpu")
    joined.training_summary = {"data": f"0.5*{tiny('sd')}/a.tsv + 0.5*hf:me/photos"}
    joined.save(tmp_path / "bridge")
    with pytest.raises(BridgeError, match=r"the language model is '/.*', which .*: --language OWN"):
        pushed(tmp_path / "bridge")
    with pytest.raises(BridgeError, match="trained on 'zoo:tiny-sd'"):
        pushed(tmp_path / "bridge", language="lab/t5", vision="me/sd")
    known = {"language": "lab/t5@v1", "licence": "mit"}
    with pytest.raises(BridgeError, match="--language lab/t5@v1: no model 'lab/t5' on the Hub"):
        pushed(tmp_path / "bridge", **known)
    hub.repositories["lab/t5"] = Repository()
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    drawn(tmp_path / "bridge", prompts=tmp_path / "prompts.txt", **known)
    files = hub.repositories[NAME].files
    assert json.loads(files["bridge.json"])["language"]["id"] == "lab/t5@v1"
    adapter = json.loads(files["language_lora/adapter_config.json"])
    assert adapter["base_model_name_or_path"] == "lab/t5"
    assert ModelCard(files["README.md"].decode()).data.base_model == ["lab/t5"]
    assert b"- data: 0.5*a.tsv + 0.5*hf:me/photos" in files["README.md"]
    (tmp_path / "sample.png").write_bytes(files["samples/00.png"])
    assert (read_record(tmp_path / "sample.png") or {})["language"] == "lab/t5@v1"
    private = str(tiny("t5").parent).encode()
    assert [name for name, data in files.items() if private in data] == []


def test_a_text_that_names_a_folder_of_this_machine_is_not_sent(
    bridge: Path, tmp_path: Path
) -> None:
    export = exported(bridge, tmp_path / "export", "light")
    with (export / "pipeline.py").open("a") as file:
        file.write(f"WEIGHTS = '{export}/x'")
    with pytest.raises(BridgeError, match=r"pipeline\.py names '/.*export', a folder of this mach"):
        pushed(export, dry_run=tmp_path / "look")


# ---- exported folders


def exported(bridge: Path, folder: Path, form: Form) -> Path:
    return export_bridge(Bridge.load(bridge, device="cpu"), folder, form=form).folder


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("light", f'"{NAME}", custom_pipeline="{NAME}", trust_remote_code=True'),
        ("merged", "with their LoRA layers in the weights"),
        ("stock", f'StableDiffusionPipeline.from_pretrained("{NAME}", trust_remote_code=True)'),
    ],
)
def test_an_export_goes_whole_and_its_card_says_how_it_is_loaded(
    bridge: Path, tmp_path: Path, form: Form, said: str
) -> None:
    export = exported(bridge, tmp_path / "export", form)
    files = {str(p.relative_to(export)) for p in export.rglob("*") if p.is_file()}
    (export / ".cache").mkdir()
    (export / ".cache" / "x.json").touch()
    done = pushed(export, dry_run=tmp_path / "look", samples=4)
    assert set(done.files) == files
    card = ModelCard.load(tmp_path / "look" / "README.md")
    assert card.data.library_name == "diffusers"
    assert said in card.text


def test_what_was_put_beside_an_export_stays_here(bridge: Path, tmp_path: Path) -> None:
    export = exported(bridge, tmp_path / "export", "light")
    whole = set(pushed(export, dry_run=tmp_path / "before").files)
    (export / "wandb").mkdir()
    text = next(path.parent for path in export.rglob("base.json"))
    mine = ["notes.txt", "id_rsa", "credentials.json", "more.safetensors", "wandb/secrets.json"]
    for path in (*(export / n for n in mine), text / "id_rsa", text / "state.pt", text / "x.csv"):
        path.write_text("secret")
    (export / "host").symlink_to("/etc/hostname")
    (text / "host").symlink_to("/etc/hostname")
    assert set(pushed(export, dry_run=tmp_path / "after").files) == whole


@pytest.mark.parametrize("names", [None, "text", [1], ["../other"], ["/etc"], [".."], ["text/x"]])
def test_an_export_that_does_not_say_of_what_it_consists_is_not_pushed(
    names: Any, bridge: Path, tmp_path: Path
) -> None:
    export = exported(bridge, tmp_path / "export", "light")
    record = json.loads((export / "bridge.json").read_text())
    record["export"]["files"] = names
    (export / "bridge.json").write_text(json.dumps(record))
    with pytest.raises(BridgeError, match=r"bridge\.json of '.*'.*; export the bridge again"):
        pushed(export, dry_run=tmp_path / "look")


def test_links_are_not_followed(saved: Path, bridge: Path, tmp_path: Path) -> None:
    """But for the one that is given."""
    run = shutil.copytree(saved, tmp_path / "run")
    export = exported(bridge, tmp_path / "export", "light")
    (tmp_path / "link").symlink_to(run)
    whole = set(pushed(tmp_path / "link", dry_run=tmp_path / "look").files)
    (run / "bridge" / "adapter" / "notes.txt").unlink()
    (run / "bridge" / "adapter" / "notes.txt").symlink_to("/etc/hostname")  # nobody would send it
    assert set(pushed(run, dry_run=tmp_path / "again").files) == whole
    [weights] = (export / "vae").glob("*.safetensors")
    for path, given in (
        (run / "bridge" / "adapter" / "config.json", run),
        (run / "bridge" / "adapter" / "more.json", run / "bridge"),
        (run / "bridge" / "adapter", run),
        (run / "bridge" / "bridge.json", run),
        (run / "metrics.jsonl", run),
        (run / "config.json", run),
        (run / "bridge", run),
        (weights, export),
        (export / "vae", export),
        (export / "bridge.json", export),
    ):
        away = tmp_path / "away"
        there = path.exists()
        if there:
            path.rename(away)
        path.symlink_to(away if there else "/etc/hostname")
        with pytest.raises(BridgeError, match=f"^'{path}' is a link, which is not followed") as why:
            pushed(given, dry_run=tmp_path / "none")
        assert "\n" not in str(why.value)
        path.unlink()
        if there:
            away.rename(path)


@pytest.mark.slow
def test_pushed_exports_are_loaded_by_plain_diffusers(
    bridge: Path, hub: Hub, tmp_path: Path
) -> None:
    """diffusers decides itself which files of a repository it fetches."""
    for form in ("merged", "light", "stock"):
        pushed(exported(bridge, tmp_path / form, form), f"me/{form}", samples=0)
    code = (
        "import torch; from diffusers import DiffusionPipeline as D\n"
        "for form in ('merged', 'light'):\n"
        "    name = f'me/{form}'\n"
        "    p = D.from_pretrained(name, custom_pipeline=name, trust_remote_code=True)\n"
        "    hidden = p.prompt_processor(['a red circle']).hidden\n"
        f"    torch.save(hidden, {str(tmp_path / 'found')!r} + form)\n"
        "p = D.from_pretrained('me/stock', trust_remote_code=True)\n"
        "hidden, _ = p.encode_prompt('a red circle', 'cpu', 1, False)\n"
        f"torch.save(hidden, {str(tmp_path / 'found')!r} + 'stock')\n"
    )
    home = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours = Bridge.load(bridge, device="cpu").encode(["a red circle"]).hidden
    for form in ("merged", "light", "stock"):
        assert torch.allclose(torch.load(tmp_path / f"found{form}"), ours, atol=1e-4)


# ---- licences and errors before anything is sent


def test_unknown_licences_stop_a_push_until_they_are_confirmed(
    bridge: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(bridge, tmp_path / "copy")
    record = json.loads((copy / "bridge.json").read_text())
    record["vision"]["licence"] = "our-own-terms"
    (copy / "bridge.json").write_text(json.dumps(record))
    with pytest.raises(BridgeError, match="'zoo:tiny-sd' is under 'our-own-terms'") as caught:
        pushed(copy, dry_run=tmp_path / "look")
    assert "--licence NAME" in str(caught.value)
    pushed(copy, dry_run=tmp_path / "look", yes=True)
    card = ModelCard.load(tmp_path / "look" / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "our-own-terms")
    assert card.data.license_link == f"https://huggingface.co/{NAME}#base-models-and-their-licences"
    assert "## Base models and their licences" in card.text


@pytest.mark.parametrize("name", ["t5-sd", "me/", "me/a b", "a/b/c", "me/x--y", "me/x.git"])
def test_a_name_that_the_hub_does_not_take_is_told(bridge: Path, name: str) -> None:
    with pytest.raises(BridgeError, match="is no name on the Hub: OWNER/NAME"):
        pushed(bridge, name)


def test_a_folder_that_is_no_bridge_is_told(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"is no bridge: it has no bridge\.json"):
        pushed(tmp_path)


def test_a_file_that_is_too_large_is_told_before_anything_is_sent(
    bridge: Path, hub: Hub, tmp_path: Path
) -> None:
    copy = shutil.copytree(bridge, tmp_path / "copy")
    with (copy / "adapter" / "more.safetensors").open("wb") as file:
        file.truncate(source.LARGEST + 1)  # a hole: it takes no room
    with pytest.raises(BridgeError, match=r"'adapter/more\.safetensors' has 500 GB, and the Hub"):
        pushed(copy)
    assert hub.asked == []


def test_a_dry_run_does_not_overwrite(bridge: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(BridgeError, match="holds something already"):
        pushed(bridge, dry_run=tmp_path)


# ---- the Hub says no


def test_without_a_token_one_is_asked_for(
    bridge: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(BridgeError, match="no token for the Hub: `hf auth login`"):
        pushed(bridge)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("stale", "the Hub does not know this token; `hf auth login` again"),
        (stand_in.READS, "the token may only read; make one that may write"),
    ],
)
def test_a_wrong_token_is_told_before_pictures_are_drawn(
    bridge: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, reason: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BridgeError, match=reason):
        pushed(bridge, samples=4)
    assert hub.asked == ["GET /api/whoami-v2"]


def test_a_token_without_the_right_to_write_is_told(bridge: Path, hub: Hub) -> None:
    hub.forbidden = True
    with pytest.raises(BridgeError, match=f"the token may not write to '{NAME}'"):
        pushed(bridge)
    hub.repositories[NAME] = Repository()
    with pytest.raises(BridgeError, match=f"the token may not write to '{NAME}'"):
        pushed(bridge)


def test_anothers_name_is_told_and_an_organisations_is_taken(bridge: Path, hub: Hub) -> None:
    with pytest.raises(BridgeError, match=r"cannot publish as 'google'.*: me/…, lab/…"):
        pushed(bridge, "google/t5")
    pushed(bridge, "lab/t5-sd")
    assert list(hub.repositories) == ["lab/t5-sd"]


def test_a_name_that_holds_something_else_is_told(bridge: Path, hub: Hub) -> None:
    hub.repositories[NAME] = Repository(files={"README.md": b"", "model.safetensors": b""})
    with pytest.raises(BridgeError, match=r"holds something else .*'model\.safetensors'"):
        pushed(bridge)


@pytest.mark.parametrize(
    "record", [b"{", b"\xff", b"[1]", b'{"files": "all"}', b'{"files": [1]}', b"[" * 100_000]
)
def test_a_damaged_record_on_the_hub_is_told_as_such(record: bytes, bridge: Path, hub: Hub) -> None:
    hub.repositories[NAME] = Repository(files={"bridge.json": record})
    said = rf"^the bridge\.json of '{NAME}' on the Hub is damaged \(.*choose another name$"
    with pytest.raises(BridgeError, match=said):
        pushed(bridge)
    assert hub.repositories[NAME].commits == []


def test_what_is_wrong_on_our_side_is_not_put_down_to_the_hub(hub: Hub) -> None:
    with pytest.raises(ValueError, match="ours"), told(NAME):
        raise ValueError("ours")
    with pytest.raises(BridgeError, match="in the Hub's place gives no JSON"), told(NAME):
        json.loads("<html>")
    with pytest.raises(BridgeError, match=r"the Hub has no such names: .*'a--b'"), told(NAME):
        HfApi(endpoint=hub.address).repo_info("a--b")


@pytest.mark.parametrize("known", [True, False])
def test_two_pushes_do_not_cross(known: bool, saved: Path, bridge: Path, hub: Hub) -> None:
    if known:
        pushed(bridge)

    def other() -> None:
        hub.repositories[NAME].files["theirs.json"] = b"{}"
        hub.repositories[NAME].commits.append("theirs")

    hub.before_commit = other
    with pytest.raises(BridgeError, match=f"'{NAME}' was made or changed by somebody.* push again"):
        pushed(saved)
    assert hub.repositories[NAME].commits[-1] == "theirs"
    if known:
        pushed(saved)
        assert "theirs.json" in hub.repositories[NAME].files


def test_a_name_that_is_taken_while_a_push_is_on_its_way_is_told(bridge: Path, hub: Hub) -> None:
    api = HfApi(endpoint=hub.address)
    there = look(api, NAME, private=False)
    pushed(bridge)
    with pytest.raises(BridgeError, match=f"'{NAME}' was made or changed by somebody"):
        send(api, NAME, {"bridge.json": b"{}"}, there, private=False, message="a")
    assert len(hub.repositories[NAME].commits) == 1


def test_private_is_private_or_not_at_all(bridge: Path, hub: Hub) -> None:
    pushed(bridge, "me/mine", private=True)
    assert hub.repositories["me/mine"].private
    pushed(bridge)
    with pytest.raises(BridgeError, match=f"'{NAME}' is there, and others see it"):
        pushed(bridge, private=True)


def test_a_card_that_the_hub_does_not_take_is_told(
    bridge: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "LICENCES", {"mit"})
    with pytest.raises(BridgeError, match=r"does not take this card.*\"license\" must be one of"):
        pushed(bridge, licence="isc")
    assert hub.repositories[NAME].files == {}


def test_no_network_is_one_line(bridge: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BridgeError, match="the Hub cannot be reached") as caught:
            push(PushConfig(str(bridge), NAME, samples=0), endpoint=address)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BridgeError, match="HF_HUB_OFFLINE keeps this machine off the Hub"):
        pushed(bridge)


# ---- interrupted


def test_an_upload_that_fails_is_one_line(
    bridge: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)  # not in a stand-in
    with pytest.raises(BridgeError) as caught:
        pushed(bridge)
    assert "\n" not in str(caught.value)
    assert NAME in str(caught.value)
    assert hub.repositories[NAME].files == {}


@pytest.mark.parametrize("fault", ["lose_commits", "lose_answers"])
def test_an_interrupted_push_leaves_nothing_half_and_goes_through_when_repeated(
    bridge: Path, hub: Hub, fault: str
) -> None:
    setattr(hub, fault, 1)
    with pytest.raises(BridgeError, match=r"the connection was lost.*push again"):
        pushed(bridge)
    done = fault == "lose_answers"
    assert sorted(hub.repositories[NAME].files) == (FILES if done else [])
    pushed(bridge)
    assert sorted(hub.repositories[NAME].files) == FILES
    assert len(hub.repositories[NAME].commits) == 1


def test_an_interrupted_update_leaves_the_earlier_bridge(
    saved: Path, bridge: Path, hub: Hub
) -> None:
    pushed(bridge)
    before = dict(hub.repositories[NAME].files)
    hub.lose_commits = 1
    with pytest.raises(BridgeError, match="is all of this push or nothing"):
        pushed(saved)
    assert hub.repositories[NAME].files == before


def test_the_command_lists_what_it_sends(
    bridge: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    from lavi_bridge.cli.publish import push as command

    command([str(bridge), NAME, "--samples", "0", "--device", "cpu"])
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines()[:9]] == FILES
    assert re.search(rf"{hub.address}/{NAME} is at commit [0-9a-f]{{12}}$", told.strip())
    command([str(bridge), NAME, "--samples", "0", "--device", "cpu"])
    assert "has all of this already; there is no new commit" in capsys.readouterr().out
