"""`lavi-bridge data check`, as a user starts it."""

import json
from pathlib import Path

from PIL import Image

from tests.processes import lavi_bridge


def test_every_error_is_named_and_the_exit_code_tells(tmp_path: Path) -> None:
    Image.new("RGB", (40, 90), "red").save(tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:50])
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "c.tsv").write_bytes(
        b"good.png\ta red wall\nno tab\ngood.png\t\xff\ngone.png\ta\ntorn.png\tb\nzero.png\tc\n"
        b"good.png\t" + b"very " * 60 + b"red\n"
    )
    done = lavi_bridge(
        "data",
        "check",
        tmp_path / "c.tsv",
        "--language",
        "zoo:tiny-llama",
        "--vision",
        "zoo:tiny-sd",
        "--out",
        tmp_path / "report",
    )
    assert done.poll() == 1
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    reasons = ["2: expected", "3: not UTF-8", "4: no image", "5: cannot read", "6: '"]
    assert [r for r in reasons if any(f"c.tsv:{r}" in e for e in report["errors"])] == reasons
    assert len(report["errors"]) == 5
    assert (report["pictures"], report["captions"]) == (5, 5)
    assert (report["token_limit"], report["truncated"]) == (32, 1)
    assert report["sizes"] == {"48×80": 2}
    assert report["shorter_sides"] == {"least": 40, "median": 40, "greatest": 40}
    for line in ("c.tsv:4: no image", "1 (20.0%) are longer than the pair's 32", "5 errors:"):
        assert line in done.stdout
    page = (tmp_path / "report" / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert "a red wall" in page


def test_a_clean_data_set_passes(tmp_path: Path) -> None:
    Image.new("RGB", (40, 90), "red").save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a red wall")
    done = lavi_bridge("data", "check", tmp_path)
    assert done.poll() == 0, done.stderr
    assert "1 pictures, 1 captions" in done.stdout
    assert "0 errors" in done.stdout
    assert lavi_bridge("data", "check", tmp_path / "nothing").poll() == 2
    done = lavi_bridge("data", "check", tmp_path, "--language", "zoo:tiny-llama")
    assert "give both, or neither" in done.stderr
