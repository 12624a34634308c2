"""Public files in the cache folder; `file://` addresses stand for the network."""

import hashlib
import time
from pathlib import Path

import pytest

from lavi_bridge import BridgeError
from lavi_bridge.files import fetch
from lavi_bridge.files.fetch import cache, checksum, fetched

CONTENT = b"a list of prompts\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", str(tmp_path / "cache"))


def source(tmp_path: Path, content: bytes = CONTENT) -> str:
    (tmp_path / "list.txt").write_bytes(content)
    return (tmp_path / "list.txt").as_uri()


def test_a_file_is_downloaded_once_and_then_read_from_the_cache(tmp_path: Path) -> None:
    url = source(tmp_path)
    path = fetched("prompts/list.txt", url=url, sha256=SHA256)
    assert path == tmp_path / "cache" / "prompts" / "list.txt"
    assert path.read_bytes() == CONTENT
    assert checksum(path) == SHA256
    (tmp_path / "list.txt").unlink()
    assert fetched("prompts/list.txt", url=url, sha256=SHA256) == path


def test_a_file_that_cannot_be_had_is_named_with_its_source_and_its_place(tmp_path: Path) -> None:
    url = (tmp_path / "missing").as_uri()
    place = tmp_path / "cache" / "list.txt"
    with pytest.raises(
        BridgeError, match=rf"fetch list\.txt \(.*\); download {url} and put it at {place}"
    ):
        fetched("list.txt", url=url, sha256=SHA256)


def test_another_file_than_expected_is_never_used(tmp_path: Path) -> None:
    url = source(tmp_path, b"<html>moved</html>")
    with pytest.raises(BridgeError, match=r"did not give list\.txt \(sha256 .*expected"):
        fetched("list.txt", url=url, sha256=SHA256)
    place = tmp_path / "cache" / "list.txt"
    assert list(place.parent.iterdir()) == []
    place.write_bytes(CONTENT[:5])
    with pytest.raises(BridgeError, match=rf"{place} is damaged or another file .*{url}"):
        fetched("list.txt", url=url, sha256=SHA256)


def test_what_has_no_checksum_is_kept_as_it_came(tmp_path: Path) -> None:
    url = source(tmp_path, b"an archive made on demand")
    for _ in range(2):
        path = fetched("list.tar.gz", url=url, sha256=None)
        assert path.read_bytes() == b"an archive made on demand"


def test_a_download_that_takes_too_long_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "LIMIT", -1.0)
    with pytest.raises(BridgeError, match="not done after"):
        fetched("list.txt", url=source(tmp_path), sha256=SHA256)
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_network_is_asked_when_told_to_stay_offline(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(BridgeError, match="HF_HUB_OFFLINE is set"):
        fetched("list.txt", url="https://example.org/list.txt", sha256=SHA256)
    assert time.monotonic() - start < 1


def test_the_cache_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(BridgeError, match="cannot make folder"):
        fetched("list.txt", url=source(tmp_path), sha256=SHA256)


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAVI_BRIDGE_CACHE", "~/elsewhere")
    assert cache() == Path.home() / "elsewhere"
    monkeypatch.delenv("LAVI_BRIDGE_CACHE")
    assert cache() == Path.home() / ".cache" / "lavi-bridge"
