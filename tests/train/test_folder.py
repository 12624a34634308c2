"""Runs as others see them: what is found, how it goes on, how it ended, and what is not read."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavi_bridge import BridgeError
from lavi_bridge.bridge.drawing import save_png
from lavi_bridge.running.lock import held
from lavi_bridge.show.pictures import grid
from lavi_bridge.train import finding
from lavi_bridge.train.finding import Runs, holds_runs
from lavi_bridge.train.folder import TILE, RunFolder
from lavi_bridge.train.run import Run
from tests.train.test_train import Tiny, captions, config

__all__ = ["captions"]


def run_in(root: Path, name: str, *, steps: int = 10, rows: int = 4) -> Path:
    """A folder as a run leaves it that has come so far."""
    folder = root / name
    folder.mkdir(parents=True)
    settings = {"language": "zoo:tiny-llama", "vision": "zoo:tiny-sd", "adapter": "linear"}
    (folder / "config.json").write_text(json.dumps(settings | {"steps": steps}))
    lines = [json.dumps({"step": n, "loss": 1 / n}) + "\n" for n in range(1, rows + 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def looked(folder: Path, root: Path | None = None) -> RunFolder:
    run = RunFolder(folder, (root or folder).resolve())
    run.look()
    run.read_on()
    return run


def names(runs: Runs) -> list[str]:
    return [runs.names[key] for key in runs.look()]


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search at every look."""
    monkeypatch.setattr(finding, "OFTEN", 0.0)


# ---- a real run


@pytest.mark.slow
def test_a_run_is_seen_while_it_trains_and_when_it_is_done(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "runs" / "one"
    settings = config(
        tiny, captions, out, steps=6, sample_every=3, sample_steps=1, validate_every=3, save_every=3
    )
    states: list[tuple[str, int]] = []
    done = threading.Event()

    def watch() -> None:
        runs = Runs([tmp_path])
        while not done.is_set():
            runs._searched = -1e9
            for key in runs.look():
                run = runs.read(key)
                states.append((run.state, len(run.figures.get("loss", ()))))
            time.sleep(0.005)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        Run(settings).train()
    finally:
        done.set()
        watching.join()
    assert {state for state, _ in states} <= {"training", "finished"}
    assert len({count for state, count in states if state == "training"}) > 2
    run = looked(out)
    assert (run.state, run.step, run.steps) == ("finished", 6, 6)
    assert run.bridge == out / "bridge"
    assert set(run.figures) >= {"loss", "lr_adapter", "lr_vision", "grad_norm", "probe_loss"}
    assert run.sample_steps() == [0, 3, 6]
    sample = run.sample(3)
    assert len(sample.pictures) == 4
    assert all(url.startswith("data:image/png") for url in sample.pictures.values())
    assert not run.trouble


def test_looking_writes_nothing(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one")
    (folder / ".lock").touch()

    def everything() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))

    before = everything()
    looked(folder)
    Runs([tmp_path]).look()
    assert everything() == before


# ---- how it ended


def test_a_run_that_is_asked_to_stop_says_so(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Run(config(tiny, captions, tmp_path, save_every=0))
    monkeypatch.setattr(type(run.agreed), "__call__", lambda self, asked: True)
    with pytest.raises(BridgeError, match="stopped at step 1"):
        run.train()
    seen = looked(tmp_path)
    assert (seen.state, seen.step) == ("stopped", 1)
    assert seen.why.startswith("stopped at step 1 of 4")
    assert seen.why.endswith(f"'{tmp_path.name}/step-1'")
    monkeypatch.undo()
    Run(config(tiny, captions, tmp_path, save_every=0)).train()  # goes on
    assert (looked(tmp_path).state, looked(tmp_path).why) == ("finished", "")


def test_a_run_that_fails_says_why(
    tiny: Tiny,
    captions: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(BridgeError, match="not a number"):
        Run(config(tiny, captions, tmp_path, lr_adapter=1e30, lr_vision=1e30, warmup=0)).train()
    run = looked(tmp_path)
    assert run.state == "failed"
    assert "not a number" in run.why


def test_a_run_that_cannot_save_its_bridge_says_why(
    tiny: Tiny, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config(tiny, captions, tmp_path, save_every=0))

    def full(folder: Path, *_: Any) -> None:
        raise BridgeError(f"cannot write '{folder}': the disk is full")

    monkeypatch.setattr(run, "_save", full)
    with pytest.raises(BridgeError, match="disk is full"):
        run.train()
    seen = looked(tmp_path)
    assert (seen.state, seen.why) == (
        "failed",
        f"cannot write '{tmp_path.name}/bridge': the disk is full",
    )


def test_the_lock_tells_training_from_killed(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one")
    with held(folder):
        assert looked(folder).state == "training"
    assert looked(folder).state == "failed"
    (folder / ".lock").write_text('{"process": 1, "host": "x", "since": ""}')  # nobody let go
    run = looked(folder)
    assert run.state == "failed"
    assert "killed" in run.why


def test_an_older_run_that_kept_its_last_step_was_stopped(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one", rows=4)
    (folder / "step-4").mkdir()
    (folder / "step-4" / "state.safetensors").touch()
    assert looked(folder).state == "stopped"


# ---- what is found


@pytest.mark.usefixtures("_often")
def test_runs_come_and_go_those_changed_last_first(tmp_path: Path) -> None:
    for age, name in enumerate(["a", "deep/b", "c"]):
        folder = run_in(tmp_path, name)
        for path in folder.iterdir():
            os.utime(path, (1e9 - age, 1e9 - age))
    runs = Runs([tmp_path])
    assert names(runs) == ["a", "deep/b", "c"]
    with (tmp_path / "c" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 0.1}\n')
    assert names(runs) == ["c", "a", "deep/b"]
    (tmp_path / "a" / "metrics.jsonl").unlink()
    assert names(runs) == ["c", "deep/b"]


def test_a_run_itself_can_be_named_and_a_folder_without_runs_is_told(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one")
    assert names(Runs([folder])) == ["one"]
    (tmp_path / "none").mkdir()
    assert (holds_runs(folder), holds_runs(tmp_path / "none")) == (True, False)
    with pytest.raises(BridgeError, match="there is no folder"):
        Runs([tmp_path / "nowhere"])


def test_a_run_that_has_not_made_a_step_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "config.json").write_text('{"language": "a", "steps": 5}')
    with held(folder):
        runs = Runs([tmp_path])
        (key,) = runs.look()
        assert (runs.found[key].state, runs.found[key].step) == ("training", 0)


def test_a_bridge_without_its_run_is_found(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    record = {"language": {"id": "l"}, "vision": {"id": "v"}, "adapter": "linear"}
    (tmp_path / "one" / "bridge.json").write_text(json.dumps(record))
    runs = Runs([tmp_path])
    (key,) = runs.look()
    assert runs.found[key].state == "finished"
    assert runs.found[key].settings == {"language": "l", "vision": "v", "adapter": "linear"}


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("stopped; go on with '{real}/step-1'", "stopped; go on with 'link/step-1'"),
        ("stopped; go on with '{link}/step-1'", "stopped; go on with 'link/step-1'"),
        ("cannot read /srv/data/a.jpg: broken", "cannot read a.jpg: broken"),
        ("'/srv/my data/a b.jpg' and '~/of me/c d' are gone", "'a b.jpg' and 'c d' are gone"),
        (
            "see https://example.org/a/b; 1/2 and/or ./x",
            "see https://example.org/a/b; 1/2 and/or ./x",
        ),
    ],
)
def test_why_it_ended_does_not_say_where_things_lie(tmp_path: Path, why: str, told: str) -> None:
    real, link = run_in(tmp_path, "a run"), tmp_path / "link"
    link.symlink_to(real)
    note = {"how": "failed", "why": why.format(real=real, link=link)}
    (real / "ended.json").write_text(json.dumps(note))
    assert looked(link).why == told


def test_links_that_lead_out_are_told_and_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    inner = run_in(root, "inner")
    outer = run_in(tmp_path, "outer")
    (root / "away").symlink_to(outer)
    for name in ("samples", "ended.json"):
        (inner / name).symlink_to(tmp_path / name)
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "samples" / "000001.png")
    (tmp_path / "ended.json").write_text('{"how": "failed", "why": "a secret"}')
    runs = Runs([root])
    assert names(runs) == ["inner"]
    assert runs.notes == ["away leads out of root: not looked into"]
    run = looked(inner, root)
    assert (run.sample_steps(), run.sample(1).sheet) == ([], "")
    assert "secret" not in run.why


# ---- what a run tells


def test_figures_go_on_where_they_were_and_begin_anew_with_the_file(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one", rows=3)
    run = looked(folder)
    metrics = folder / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write('{"step": 4, "loss": 0.25, "new": 1}\n{"step": 5, "lo')
    run.read_on()
    assert list(run.figures["loss"].steps) == [1, 2, 3, 4]
    assert list(run.figures["new"].values) == [1.0]
    (tmp_path / "other").write_text('{"step": 1, "loss": 9.5}\n')
    (tmp_path / "other").replace(metrics)  # as a run does that goes on from a checkpoint
    run.read_on()
    assert list(run.figures["loss"].values) == [9.5]


def test_what_is_no_number_is_no_figure(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one", rows=1)
    rows = ['{"step": 2, "loss": NaN}', '{"step": 3, "loss": 1e999}', '{"step": 4, "loss": true}']
    rows += ['{"step": 5, "loss": "9"}', f'{{"step": 6, "loss": {10**400}}}', '{"step": "7"}']
    rows += ['{"step": -8, "loss": 3.0}', '{"step": 9, "loss": 2}']
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    run = looked(folder)
    assert list(run.figures["loss"].values) == [3.0, 2.0]
    assert list(run.figures["loss"].steps) == [0, 9]


def test_a_step_that_was_made_again_counts_once(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one", rows=4)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 7.0}\n{"step": 4, "loss": 8.0}\n')
    run = looked(folder)
    assert list(run.figures["loss"].steps) == [1, 2, 3, 4]
    assert list(run.figures["loss"].values)[2:] == [7.0, 8.0]


def test_the_warm_start_has_steps_of_its_own(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one", rows=0)
    rows = [{"warm_start_step": n, "match": "states", "mismatch": 1 / n} for n in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = looked(folder)
    assert (run.step, run.warm_step) == (0, 2)
    assert list(run.warm["mismatch"].values) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("config.json", "{", "config.json cannot be read: it is no JSON object"),
        ("config.json", "[1]", "config.json cannot be read: it is no JSON object"),
        ("metrics.jsonl", "no\n", "metrics.jsonl: line 1 cannot be read as JSON"),
        ("ended.json", "", "ended.json cannot be read: it is no JSON object"),
    ],
)
def test_a_broken_file_is_a_line(tmp_path: Path, name: str, content: str, line: str) -> None:
    folder = run_in(tmp_path, "one")
    (folder / name).write_text(content)
    run = looked(folder)
    assert list(run.trouble.values()) == [line]
    (folder / name).unlink()  # and mended
    (folder / name).write_text('{"steps": 4}\n')
    run.look()
    run.read_on()
    assert not run.trouble


def test_samples_are_cut_by_their_prompts_or_shown_whole(tmp_path: Path) -> None:
    folder = run_in(tmp_path, "one")
    (folder / "samples").mkdir()
    colours = ["red", "lime", "blue"]
    rows = [[Image.new("RGB", (8, 8), colour)] for colour in colours]
    sheet = grid(rows, columns=["step 7"], labels=colours, tile=TILE)
    save_png(sheet, folder / "samples" / "000007.png", {"step": 7, "prompts": colours})
    sheet.save(folder / "samples" / "000008.png")
    (folder / "samples" / "000009.png").write_bytes(b"no picture")
    run = looked(folder)
    assert run.sample_steps() == [7, 8, 9]
    assert list(run.sample(7).pictures) == colours
    assert not run.sample(7).sheet
    assert run.sample(8).sheet.startswith("data:image/png")
    assert run.sample(9).sheet == ""
    assert run.trouble["samples/000009.png"].startswith("samples/000009.png cannot be read")
    assert run.sample(10).sheet == ""


def test_50_runs_and_100_000_rows_are_read_in_no_time(tmp_path: Path) -> None:
    """Times of the processor, so that a busy machine does not count; ten times what is usual."""
    for number in range(50):
        run_in(tmp_path, f"run-{number}", rows=200)
    lines = "".join(
        f'{{"step": {n}, "loss": {1 / n}, "grad_norm": 0.1, "lr_adapter": 0.0001}}\n'
        for n in range(1, 100_001)
    )
    (tmp_path / "run-0" / "metrics.jsonl").write_text(lines)
    runs = Runs([tmp_path])

    def seconds(act: Callable[[], object]) -> float:
        began = time.process_time()
        act()
        return time.process_time() - began

    assert seconds(runs.look) < 0.5
    assert seconds(runs.look) < 0.1
    key = next(key for key, name in runs.names.items() if name == "run-0")
    assert seconds(lambda: runs.read(key)) < 5
    assert len(runs.found[key].figures["loss"]) == 100_000
    assert seconds(lambda: runs.read(key)) < 0.01
