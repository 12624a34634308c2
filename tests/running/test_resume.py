"""A run that is killed and repeated ends with the very bits of one that was not."""

import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import resource_sharer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.train import checkpoints
from lavi_bridge.train.caching import fill
from lavi_bridge.train.options import CacheConfig, TrainConfig
from lavi_bridge.train.run import Run
from tests.processes import Command, begin, distributed, run_distributed

Tiny = Callable[[str], Path]
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan")


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Path]:
    """Twenty-eight pictures, as a caption file and as two WebDataset shards."""
    return pictures(tmp_path)


def pictures(folder: Path) -> dict[str, Path]:
    rows = []
    for number in range(28):
        color = COLORS[number % len(COLORS)]
        image = Image.new("RGB", (16 + number % 3 * 8, 16), color)
        image.putpixel((number % 16, 3), (number * 9, 0, 0))
        image.save(folder / f"{number}.png")
        rows.append((f"{number}.png", f"a {color} wall, number {number}"))
    (folder / "captions.tsv").write_text("".join(f"{p}\t{c}\n" for p, c in rows))
    shards = folder / "shards"
    shards.mkdir()
    for shard in range(2):
        with tarfile.open(shards / f"{shard:05}.tar", "w") as archive:
            for path, caption in rows[shard::2]:
                archive.add(folder / path, f"{Path(path).stem}.png")
                text = json.dumps({"caption": caption}).encode()
                entry = tarfile.TarInfo(f"{Path(path).stem}.json")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
    return {"tsv": folder / "captions.tsv", "webdataset": shards}


@pytest.fixture(scope="module")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The settings of a run of four steps that has ended; others may read it."""
    folder = tmp_path_factory.mktemp("finished")
    settings = config(tiny, pictures(folder)["tsv"], folder / "run", steps=4)
    Run(settings).train()
    return settings


@pytest.fixture
def again(finished: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The same of a copy of all, which may be changed."""
    shutil.copytree(finished.out.parent, tmp_path / "copy")
    data, out = tmp_path / "copy" / "captions.tsv", tmp_path / "copy" / "run"
    return replace(finished, data=str(data), out=out)


def config(tiny: Tiny, data: Path, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "language": str(tiny("t5")),
        "vision": str(tiny("sd")),
        "data": str(data),
        "out": out,
        "rank": 4,
        "steps": 40,
        "batch_size": 3,
        "accumulate": 2,
        "log_every": 1,
        "sample_every": 0,
        "save_every": 4,
        "validate_every": 0,
        "schedule": "cosine",
        "ema": 0.9,
        "device": "cpu",
        "tracker": "none",
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def steps_made(out: Path) -> int:
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum('"loss"' in line for line in lines)


def train(settings: TrainConfig) -> None:
    """In a process of its own."""
    Run(settings).train()


def train_until_killed(settings: TrainConfig, times: int) -> None:
    """Kill -9 the run so often, at random moments, then let it end."""
    rng = random.Random(7)
    kills = 0
    while True:
        process = begin(train, settings)
        target = steps_made(settings.out) + rng.randint(2, 7)
        while process.is_alive() and (kills == times or steps_made(settings.out) < target):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)  # some moment of a step, or of a checkpoint
        if process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if process.exitcode == 0:
            assert kills == times
            return


@pytest.mark.parametrize(
    ("kind", "workers", "buckets", "times"),
    [
        ("tsv", 2, True, 1),
        pytest.param("tsv", 2, True, 3, marks=pytest.mark.slow),
        pytest.param("tsv", 0, False, 3, marks=pytest.mark.slow),
        pytest.param("webdataset", 2, False, 3, marks=pytest.mark.slow),
        pytest.param("cached", 2, True, 3, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_points_it_ends_with_the_same_bits(
    tiny: Tiny,
    data: dict[str, Path],
    tmp_path: Path,
    kind: str,
    workers: int,
    buckets: bool,
    times: int,
) -> None:
    cache = tmp_path / "latents" if kind == "cached" else None
    source = data["tsv" if cache else kind]
    if cache:
        fill(CacheConfig(str(tiny("sd")), str(source), cache, buckets=buckets, device="cpu"))
    settings = {"steps": 8 * times + 4, "validate_every": 6, "buckets": buckets, "cache": cache}
    straight = config(tiny, source, tmp_path / "straight", workers=0, **settings)
    killed = config(tiny, source, tmp_path / "killed", workers=workers, **settings)
    expected = Run(straight).train().id
    train_until_killed(killed, times)
    figures = [
        [
            {k: v for k, v in json.loads(line).items() if k != "images_per_second"}
            for line in (out / "metrics.jsonl").read_text().splitlines()
        ]
        for out in (straight.out, killed.out)
    ]
    assert figures[0] == figures[1]  # every loss of every step, and nothing twice
    assert Bridge.load(killed.out).id == expected
    assert list(checkpoints.checkpoints(killed.out)) == list(checkpoints.checkpoints(straight.out))


@pytest.mark.slow
def test_two_processes_killed_together_end_with_the_same_bits(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path
) -> None:
    def arguments(out: Path) -> list[object]:
        return [
            "train",
            "--language",
            tiny("llama"),
            "--vision",
            tiny("sd"),
            "--data",
            data["tsv"],
            "--out",
            out,
            "--rank",
            4,
            "--steps",
            12,
            "--batch-size",
            2,
            "--log-every",
            1,
            "--sample-every",
            0,
            "--save-every",
            3,
            "--validate-every",
            0,
            "--device",
            "cpu",
        ]

    run_distributed(*arguments(tmp_path / "straight"))
    commands = distributed(*arguments(tmp_path / "killed"))
    while steps_made(tmp_path / "killed") < 7:
        time.sleep(0.02)
    for command in commands:
        command.kill()
    assert not (tmp_path / "killed" / "bridge").exists()
    run_distributed(*arguments(tmp_path / "killed"))
    assert Bridge.load(tmp_path / "killed").id == Bridge.load(tmp_path / "straight").id


def test_a_signal_saves_and_the_same_command_goes_on(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tiny, data["tsv"], tmp_path / "run", steps=9, save_every=100)
    for at, number in ((2, signal.SIGTERM), (5, signal.SIGINT)):
        run = Run(settings)
        add = run.record.add

        def interrupt(
            add: Callable[..., None] = add, at: int = at, number: int = number, **values: object
        ) -> None:
            add(**values)
            if values.get("step") == at and "loss" in values:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(run.record, "add", interrupt)
        with pytest.raises(BridgeError, match=rf"stopped at step {at + 1} of 9; the same command"):
            run.train()
    done = Run(settings).train()
    straight = Run(config(tiny, data["tsv"], tmp_path / "other", steps=9, save_every=100)).train()
    assert done.id == straight.id


def test_ctrl_c_in_a_terminal_reaches_the_readers_and_still_saves(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = [
        "--language",
        tiny("llama"),
        "--vision",
        tiny("sd"),
        "--data",
        data["tsv"],
        "--out",
        tmp_path / "run",
        "--steps",
        5000,
        "--batch-size",
        2,
        "--rank",
        4,
        "--workers",
        2,
        "--accumulate",
        4,
        "--log-every",
        1,
        "--sample-every",
        0,
        "--validate-every",
        0,
        "--tracker",
        "none",
        "--device",
        "cpu",
    ]
    process = Command("train", *flags)
    while steps_made(tmp_path / "run") < 3 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 2
    assert "error: stopped at step" in process.stderr, process.stderr[-2000:]
    assert len(checkpoints.checkpoints(tmp_path / "run")) == 1


def test_an_average_begins_where_the_warm_start_ends(few: None, tmp_path: Path) -> None:
    settings = TrainConfig(
        "zoo:tiny-t5-small",
        "zoo:tiny-sd",
        "shapes",
        tmp_path / "run",
        rank=2,
        steps=1,
        batch_size=2,
        warm_start=8,
        ema=0.9,
        sample_every=0,
        validate_every=0,
        device="cpu",
        tracker="none",
    )
    Run(settings).train()
    first, fresh = Bridge.load(tmp_path / "run" / "step-0"), Run(settings).bridge
    far = (
        first.adapter.state_dict()["ff1.net.2.weight"]
        - fresh.adapter.state_dict()["ff1.net.2.weight"]
    )
    assert far.abs().max() > 1e-3


def test_a_finished_run_says_so_and_more_steps_go_on(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(out: str, steps: int) -> str:
        return (
            Run(
                config(
                    tiny,
                    data["tsv"],
                    tmp_path / out,
                    steps=steps,
                    accumulate=1,
                    schedule="constant",
                    warmup=0,
                )
            )
            .train()
            .id
        )

    first = run("a", 4)
    assert run("a", 4) == first
    assert "finished before, at step 4" in capsys.readouterr().out
    assert run("a", 8) == run("b", 8) != first


@pytest.mark.slow
def test_a_run_with_more_steps_keeps_its_warm_up(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path
) -> None:
    def run(steps: int) -> Run:
        made = Run(
            config(
                tiny, data["tsv"], tmp_path / "run", steps=steps, accumulate=1, schedule="constant"
            )
        )
        made.train()
        return made

    assert run(20).warmup == run(30).warmup == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lr_vision": 3e-4}, r"\(lr_vision: 0\.0001 there, 0\.0003 here\)"),
        ({"batch_size": 4}, "images per batch: 3 there, 4 here"),
        ({"language": "llama"}, "language model: "),
        ({"steps": 12}, "steps: 4 there, 12 here"),  # the cosine would bend
    ],
)
def test_a_run_with_other_settings_is_refused(
    tiny: Tiny, again: TrainConfig, change: dict[str, Any], reason: str
) -> None:
    if "language" in change:
        change = {"language": str(tiny("bert"))}
    with pytest.raises(BridgeError, match=reason):
        Run(replace(again, **change)).train()


def test_a_run_on_changed_data_is_refused(again: TrainConfig) -> None:
    data = Path(again.data)
    data.write_text(data.read_text().replace("number 3\n", "number three\n"))
    with pytest.raises(BridgeError, match="data set: "):
        Run(again).train()


def test_the_last_and_the_best_checkpoints_are_kept(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    Run(config(tiny, data["tsv"], out, steps=5, keep=9, save_every=1, validate_every=1)).train()
    figures = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    losses = {m["step"]: m["val_loss"] for m in figures if m.get("step") and "val_loss" in m}
    assert checkpoints.best(out) == {"step": 5, "val_loss": min(losses.values())}
    checkpoints.note_best(out, 2, 0.9 * min(losses.values()))  # as if it had been better
    checkpoints.note_best(out, 3, 0.95 * min(losses.values()))
    checkpoints.prune(out, 2)
    assert list(checkpoints.checkpoints(out)) == [2, 4, 5]


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path
) -> None:
    settings = config(
        tiny,
        data["tsv"],
        tmp_path / "run",
        steps=30,
        ema=0.0,
        lr_adapter=1e30,
        lr_vision=1e30,
        warmup=0,
        save_every=1,
        validate_every=0,
        schedule="constant",
    )
    with pytest.raises(BridgeError, match=r"not a number in the steps up to \d+; the last good"):
        Run(settings).train()
    last = checkpoints.latest(settings.out)
    assert last is not None
    assert all(p.isfinite().all() for p in Bridge.load(last).trainable_parameters())


def test_a_full_disk_leaves_the_checkpoint_before(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    import lavi_bridge.running.run_state

    settings = config(tiny, data["tsv"], tmp_path / "run", steps=6, save_every=2)
    write, full = lavi_bridge.running.run_state.save_file, []

    def save_file(tensors: object, path: Path, *rest: object) -> None:
        if "step-4" in str(path):
            full.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lavi_bridge.running.run_state, "save_file", save_file)
    with pytest.raises(BridgeError, match=r"step-4.*no space left on the disk"):
        Run(settings).train()
    assert full
    assert list(checkpoints.checkpoints(settings.out)) == [2]
    monkeypatch.undo()
    straight = Run(replace(settings, out=tmp_path / "straight")).train()
    assert Run(settings).train().id == straight.id


def test_a_damaged_checkpoint_is_named(again: TrainConfig) -> None:
    state = again.out / "step-4" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(BridgeError, match=r"step-4/state\.safetensors is damaged"):
        Run(again).train()


@pytest.mark.slow
def test_a_reader_that_dies_is_named_and_nothing_is_lost(
    tiny: Tiny, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tiny, data["tsv"], tmp_path / "run", steps=8, workers=1)
    run = Run(settings)
    parent = os.getpid()
    read = type(run.source).picture

    def picture(source: object, index: int, at_least: int | None = None) -> Image.Image:
        if os.getpid() != parent and steps_made(settings.out) > 2:
            resource_sharer.stop()  # as on a busy machine: what it has read is lost,
            time.sleep(1)  # and only then it counts as dead
            os._exit(1)
        return read(source, index, at_least)  # type: ignore[arg-type]

    monkeypatch.setattr(type(run.source), "picture", picture)
    with pytest.raises(BridgeError, match=r"a process that reads images died.*goes on"):
        run.train()
    assert not multiprocessing.active_children()
    monkeypatch.undo()
    straight = config(tiny, data["tsv"], tmp_path / "straight", steps=8)
    assert Run(settings).train().id == Run(straight).train().id
