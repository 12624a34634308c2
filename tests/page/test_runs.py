"""What the page shows of runs, without a browser and without Gradio."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.drawing import save_png
from lavi_bridge.page.models import OWN, Known, known_as, known_of, sorted_out
from lavi_bridge.page.runs import Shown, curves, heading, listed, looks, samples, settings
from lavi_bridge.page.studio import Studio
from lavi_bridge.show.pictures import grid
from lavi_bridge.train.finding import Runs
from lavi_bridge.train.folder import TILE
from tests.train.test_folder import run_in

EVIL = '<img src=x onerror="alert(1)"><script>alert(1)</script>'


def shown(runs: Runs) -> list[Shown]:
    """The first two runs by name."""
    keys = sorted(runs.look(), key=runs.names.__getitem__)
    return [Shown(runs.names[key], runs.read(key)) for key in keys[:2]]


def sampled(folder: Path, step: int, prompts: list[str]) -> None:
    (folder / "samples").mkdir(exist_ok=True)
    sheet = grid(
        [[Image.new("RGB", (8, 8), "red")] for _ in prompts],
        columns=[f"step {step}"],
        labels=prompts,
        tile=TILE,
    )
    path = folder / "samples" / f"{step:06d}.png"
    save_png(sheet, path, {"step": step, "prompts": prompts})


def test_the_list_names_models_steps_and_state(tmp_path: Path) -> None:
    run_in(tmp_path, "one", steps=8, rows=4)
    runs = Runs([tmp_path])
    keys = runs.look()
    html = listed(runs, keys, (keys[0], None))
    for text in ("zoo:tiny-llama → zoo:tiny-sd", "linear", "4 of 8", "failed", "width:50%"):
        assert text in html
    assert 'aria-pressed="true">one' in html


def test_two_runs_have_their_curves_over_each_other(tmp_path: Path) -> None:
    run_in(tmp_path, "a", rows=4)
    run_in(tmp_path, "b", rows=6)
    html = curves(shown(Runs([tmp_path])), log=True, over=0.5)
    assert html.count("<figure") == 1
    assert html.count("<polyline") == 4  # both smoothed, and behind them as they are
    assert "A loss</span> <b>0.25</b> at 4" in html
    assert "B loss</span> <b>0.1667</b> at 6" in html
    assert "(log)" in html


def test_only_settings_that_differ_are_in_the_first_table(tmp_path: Path) -> None:
    run_in(tmp_path, "a", steps=8)
    run_in(tmp_path, "b", steps=9)
    first, second = settings(shown(Runs([tmp_path]))).split("all settings")
    assert "1 setting differs" in first
    assert "<td>8</td><td>9</td>" in first
    assert "zoo:tiny-llama" not in first
    assert "zoo:tiny-llama" in second


def test_samples_stand_side_by_side_at_the_steps_that_both_have(tmp_path: Path) -> None:
    for name, steps in (("a", (0, 10, 20)), ("b", (10, 20, 30))):
        folder = run_in(tmp_path, name)
        for step in steps:
            sampled(folder, step, ["a circle", f"only in {name}"])
    both = shown(Runs([tmp_path]))
    assert looks(both) == [10, 20]
    assert looks(both[:1]) == [0, 10, 20]
    html = samples(both, 10)
    assert html.count("<img") == 4
    assert html.count("<p>none</p>") == 2
    assert html.count('class="lb-look"') == 3


def test_whatever_people_write_is_text(tmp_path: Path) -> None:
    folder = run_in(tmp_path, EVIL.replace("/", "\u2215"))
    given = {"language": EVIL, "vision": EVIL, "adapter": EVIL, EVIL: EVIL, "steps": 9}
    (folder / "config.json").write_text(json.dumps(given))
    rows = [json.dumps({"step": n, "loss": 1.0, EVIL: 2.0}) + "\n" for n in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(rows))
    (folder / "ended.json").write_text(json.dumps({"how": "failed", "why": EVIL}))
    sampled(folder, 1, [EVIL])
    runs = Runs([tmp_path])
    one = shown(runs)
    html = [listed(runs, runs.look(), (None, None)), heading(one), curves(one)]
    html += [samples(one, 1), settings(one)]
    for part in html:
        assert "<script" not in part
        assert "<img src=x" not in part
        assert "&lt;" in part


def test_names_that_are_no_unicode_can_be_sent(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad-\xff"))
    run_in(folder.parent, folder.name)
    runs = Runs([tmp_path])
    assert listed(runs, runs.look(), (None, None)).encode()


def test_a_run_that_is_gone_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="no longer there"):
        Runs([tmp_path]).read("../../etc/passwd")


# ---- what is named, and what is opened


def test_folders_are_told_apart(tmp_path: Path) -> None:
    going = run_in(tmp_path / "runs", "going")
    done = run_in(tmp_path / "runs", "done")
    for folder in (done / "bridge", tmp_path / "bridge"):
        folder.mkdir()
        (folder / "bridge.json").write_text("{}")
    named = [OWN, *map(str, (going, done, tmp_path / "runs", tmp_path / "bridge"))]
    bridges, runs = sorted_out(named)
    assert bridges == [OWN, str(done), str(tmp_path / "bridge")]
    assert runs == [going, done, tmp_path / "runs"]


def test_the_bridge_of_a_run_can_be_drawn_with(tmp_path: Path) -> None:
    bridge = Bridge.connect("zoo:tiny-llama", OWN, rank=2, tokens=32, device="cpu")
    folder = run_in(tmp_path, "one")
    bridge.save(folder / "step-4")
    (folder / "step-4" / "state.safetensors").touch()
    (one,) = shown(Runs([tmp_path]))
    assert one.run.bridge == folder / "step-4"
    studio = Studio(known_of([OWN]))
    known = studio.offer(known_as("tiny-sd", str(one.run.bridge)))
    assert known.name == "tiny-sd (2)"
    assert studio.offer(known_as("other", str(one.run.bridge))) is known
    assert [other.name for other in studio.known] == ["tiny-sd", "tiny-sd (2)"]
    assert isinstance(studio.models.known["tiny-sd (2)"], Known)
