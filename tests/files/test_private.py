"""What is about to be read by others names no folder of this machine."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from lavi_bridge import BridgeError
from lavi_bridge.files.private import Contents, check_private


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of which all is known."""
    for name in ("home/me", "work", "temporary", "fetched"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "fetched"))


def refused(contents: Contents, named: str) -> None:
    with pytest.raises(BridgeError, match="a folder of this machine") as error:
        check_private(contents, ["/data/bridge"])
    assert f"names '{named}'" in str(error.value)


@pytest.mark.parametrize("root", ["home/me", "work", "temporary", "fetched"])
@pytest.mark.parametrize("name", ["notes", "a.csv", "a.codes", "a.JSON", "README.md"])
def test_the_machines_own_folders_are_found_in_any_text(
    root: str, name: str, tmp_path: Path
) -> None:
    place = str(tmp_path / root)
    refused({"fine.md": b"x", name: f"see {place}/x".encode()}, place)
    check_private({name: b"see tmp/x, and https://host/home/me/x"}, ["/data/bridge"])


def test_the_folders_that_are_given_are_found_and_longer_names_are_others() -> None:
    refused({"a.yaml": b"out: /data/bridge"}, "/data/bridge")
    check_private({"a.yaml": b"out: /data/bridge-2"}, ["/data/bridge"])


def test_a_home_right_below_the_root_is_a_word_where_nothing_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/root")
    check_private({"tokenizer.json": b'{"model": {"vocab": {"/root": 1, "/root/": 2}}}'}, [])
    refused({"a.txt": b"/root/x"}, "/root")


@pytest.mark.parametrize(
    "value", ["/mnt/cache/x", "/data/me", "~/x", "C:\\Users\\me", "D:/x/y", "file:///srv/x/y"]
)
def test_a_value_of_json_that_is_a_path_is_refused_wherever_it_leads(value: str) -> None:
    refused({"config.json": json.dumps({"a": [{"b": value}]}).encode()}, value)
    check_private({"tokenizer.json": json.dumps({"merges": [["/usr/lib", "/x"]]}).encode()}, [])


@pytest.mark.parametrize("value", ["/", "/s", "</s>", "me/t5-sd", "https://a/b", "a /b/c", "~"])
def test_other_values_are_left_alone(value: str) -> None:
    check_private({"config.json": json.dumps({"a": value}).encode()}, [])


def test_a_folder_is_found_behind_the_escapes_of_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "zo\u00eb"
    monkeypatch.setenv("HOME", str(home))
    data = json.dumps({"a": f"of {home}/x"}).encode()
    assert b"\\u00eb" in data
    refused({"config.json": data}, str(home))


def test_the_header_of_weights_is_read_and_nothing_behind_it(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3)}
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors, {"from": "/mnt/me/base.ckpt"}))
    refused({"a.safetensors": path}, "/mnt/me/base.ckpt")
    home = str(Path.home()).encode()
    behind = save({"a": torch.frombuffer(bytearray(home), dtype=torch.uint8)})
    check_private({"a.safetensors": behind, "a.png": struct.pack("<q", 3) + home + b"/x"}, [])
