"""Pictures on disk: names, contents, and going on after an interruption."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.drawing import draw, file_name, read_prompts, read_record
from lavi_bridge.cli import main as cli
from lavi_bridge.config import Sampling
from lavi_bridge.errors import NotANumber
from lavi_bridge.reproduce import work
from lavi_bridge.reproduce.options import ReproduceConfig
from lavi_bridge.show.output import tolerate_all_signs
from lavi_bridge.show.pictures import to_images

Tiny = Callable[[str], Path]


@pytest.fixture(scope="module")
def bridge(tiny: Tiny) -> Bridge:
    return Bridge.connect(tiny("t5"), tiny("sd"), rank=4)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red circle", "00007-a-red-circle.png"),
        ("../../etc/passwd", "00007-etc-passwd.png"),
        ("Crème brûlée, 50% off!", "00007-creme-brulee-50-off.png"),
        ("\x00\n/\\:*?", "00007-prompt.png"),
        ("一个红色的圆", "00007-prompt.png"),
        ("x" * 500, f"00007-{'x' * 60}.png"),
        ("", "00007-prompt.png"),
    ],
)
def test_no_prompt_can_break_a_file_name(prompt: str, name: str) -> None:
    assert re.sub(r"-[0-9a-f]{6}\.png$", ".png", file_name(7, prompt, {})) == name


def test_prompt_seed_and_bridge_are_inside_the_png(bridge: Bridge, tmp_path: Path) -> None:
    prompt = "ein rötlicher Kreis, 一个红色的圆"
    [path] = draw(bridge, [prompt], tmp_path, Sampling(seed=3, steps=1, guidance=2.0))
    record = read_record(path)
    assert record is not None
    assert (record["prompt"], record["seed"], record["bridge"]) == (prompt, 3, bridge.id)
    assert (record["steps"], record["guidance"]) == (1, 2.0)


def test_a_repeated_call_draws_only_what_is_missing(bridge: Bridge, tmp_path: Path) -> None:
    prompts, sampling = ["a", "b", "c"], Sampling(steps=1)
    paths = list(draw(bridge, prompts, tmp_path, sampling))
    before = [path.read_bytes() for path in paths]
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].write_bytes(before[1][:50])  # cut short by a crash
    assert list(draw(bridge, prompts, tmp_path, sampling)) == paths
    changed = [path.stat().st_mtime_ns != t for path, t in zip(paths, times, strict=True)]
    assert changed == [False, True, False]
    assert paths[1].read_bytes() == before[1]


def test_other_settings_never_overwrite_a_picture(bridge: Bridge, tmp_path: Path) -> None:
    settings = [Sampling(steps=1), Sampling(steps=2), Sampling(steps=1, seed=9)]
    paths = [path for sampling in settings for path in draw(bridge, ["a"], tmp_path, sampling)]
    assert len({path.read_bytes() for path in paths}) == 3


def test_a_prompt_file_has_one_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffone\n\n two \n", encoding="utf-8")
    assert read_prompts(path) == ["one", "two"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BridgeError, match="is not UTF-8"):
        read_prompts(path)
    with pytest.raises(BridgeError, match=r"cannot read prompt file .*No such file"):
        read_prompts(tmp_path / "none.txt")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["lavi-bridge", *map(str, arguments)])
    cli.main()


def test_the_command_line_draws_prompts_and_files_with_several_seeds(
    bridge: Bridge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bridge.save(tmp_path / "bridge")
    (tmp_path / "more.txt").write_text("third\n")
    run(
        monkeypatch,
        "generate",
        tmp_path / "bridge",
        "first",
        "second",
        "--file",
        tmp_path / "more.txt",
        "--per-prompt",
        2,
        "--suffix",
        ", best",
        "--steps",
        1,
        "--seed",
        4,
        "--scheduler",
        "ddim",
        "--out",
        tmp_path / "png",
        "--batch-size",
        5,
    )
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    records = [read_record(path) or {} for path in paths]
    assert [r["prompt"] for r in records] == [
        "first, best",
        "first, best",
        "second, best",
        "second, best",
        "third, best",
        "third, best",
    ]
    assert [r["seed"] for r in records] == [4, 5, 6, 7, 8, 9]


def test_an_image_model_draws_with_its_own_encoder_for_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "generate", "zoo:tiny-sd", "a red circle", "--steps", 1, "--out", tmp_path)
    record = read_record(Path(capsys.readouterr().out.strip()))
    assert record is not None
    assert record["language"] == "zoo:tiny-sd/text_encoder"


def test_a_published_checkpoint_is_converted_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.conftest import GOLDEN

    pair = GOLDEN / "t5_pixart"
    run(
        monkeypatch,
        "convert",
        pair / "checkpoint",
        tmp_path / "out",
        "--language",
        pair / "base" / "language",
        "--vision",
        pair / "base" / "vision",
    )
    assert "holds bridge" in capsys.readouterr().out
    assert Bridge.load(tmp_path / "out").language.lora is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gnerate"], "unknown command 'gnerate'; known: .*did you mean 'generate'"),
        (["generate", "nowhere", "a"], "no folder 'nowhere'"),
        (["generate", "nowhere"], "no prompts: give some in quotes"),
        (["generate", "zoo:tiny-sd", "a", "--quantize", "nf4"], "--quantize is of a bridge"),
        (
            ["plan", "--language", "zoo:tiny-t5-base", "--vision", "zoo:tiny-t5-base"],
            "has no model_index",
        ),
        (["list", "--nonsense"], "nonsense"),
        (
            ["generate", "zoo:tiny-sd", "a", "--steps", "5000", "--scheduler", "ddim"],
            "5000 steps: ",
        ),
        (["generate", "zoo:tiny-sd", "a", "--out", "README.md"], "cannot make folder 'README.md'"),
        (["generate", "zoo:tiny-sd", "a", "--per-prompt", "0"], "'per_prompt' must be at least 1"),
        (["generate", "src/nothing", "a"], "no folder 'src/nothing'"),
    ],
)
def test_bad_input_is_a_line_on_stderr_and_exit_code_2(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error


# ---- pictures that are no numbers


@pytest.fixture
def broken(tiny: Tiny) -> Bridge:
    """Its autoencoder gives what one that overflows in 16 bits gives."""
    made = Bridge.connect(tiny("t5"), tiny("sd"), rank=2, device="cpu")
    torch.nn.init.constant_(made.vision.vae.decoder.conv_out.bias, torch.nan)
    return made


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [(torch.float32, "damaged weights"), (torch.bfloat16, "use --dtype float32")],
)
def test_a_picture_that_is_not_a_number_is_named_and_nothing_is_written(
    broken: Bridge, tmp_path: Path, dtype: torch.dtype, hint: str
) -> None:
    broken.vision.vae.to(dtype)
    for _ in range(2):  # nor is it by a second call
        with pytest.raises(NotANumber, match=rf"the picture of 'a cat' is not a number; .*{hint}"):
            list(draw(broken, ["a cat", "a dog"], tmp_path, Sampling(steps=1)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_value_that_is_not_finite_spoils_its_picture(value: float) -> None:
    pixels = torch.zeros(3, 3, 4, 4)
    pixels[2, 0, 1, 1] = value
    with pytest.raises(NotANumber, match=r"of 'number 2' is not a number$"):
        to_images(pixels)
    with pytest.raises(NotANumber, match=r"of 'a very long prompt.*…' is not"):
        to_images(pixels, ["", "", "a very long prompt, " * 20])


def test_values_far_outside_are_black_and_white() -> None:
    [picture] = to_images(torch.tensor([-1e30, 1e30, 0.0]).reshape(1, 1, 1, 3).expand(1, 3, 1, 3))
    assert [picture.getpixel((x, 0)) for x in range(3)] == [(n,) * 3 for n in (0, 255, 128)]


@pytest.mark.parametrize("guidance", [float("nan"), float("inf"), -float("inf")])
def test_guidance_is_a_finite_number(
    bridge: Bridge,
    guidance: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = f"'guidance' must be a finite number, not {guidance}"
    with pytest.raises(BridgeError, match=message):
        Sampling(guidance=guidance)
    with pytest.raises(BridgeError, match=message):
        bridge.generate("a", guidance=guidance)
    text, latents = bridge.encode("a"), torch.zeros(1, *bridge.vision.latent_shape(16, 16))
    with pytest.raises(BridgeError, match=message):
        next(bridge.sample(text, latents=latents, scheduler="ddim", guidance=guidance))
    for command in (
        ["generate", "zoo:tiny-sd", "a"],
        ["evaluate", "zoo:tiny-sd", "--suites", "shapes"],
    ):
        with pytest.raises(SystemExit):  # before anything is loaded
            run(monkeypatch, *command, f"--guidance={guidance}")
        assert capsys.readouterr().err == f"error: {message}\n"


def test_guidance_below_zero_leads_away_from_the_prompt(bridge: Bridge) -> None:
    toward, away = (bridge.generate("a", guidance=g, steps=1)[0] for g in (2.0, -2.0))
    assert toward.tobytes() != away.tobytes()


# ---- consoles and pipes that lack signs


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_help_and_errors_take_any_pipe(encoding: str) -> None:
    for command in (["--help"], ["train", "--help"], ["猫"]):
        done = subprocess.run(
            [sys.executable, "-X", "utf8=0", "-m", "lavi_bridge", *command],
            capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": encoding},
        )
        assert done.returncode == (2 if command == ["猫"] else 0)
        assert len((done.stdout + done.stderr).decode(encoding)) > 50
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_captions_and_tables_take_any_console(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("une 猫", encoding="utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    run(monkeypatch, "list", "recipes")
    with pytest.raises(SystemExit):  # one picture is damaged
        run(monkeypatch, "data", "check", tmp_path)
    stream.flush()
    told = stream.buffer.getvalue().decode(encoding)
    assert ("×" in told) is (encoding != "ascii")
    assert "paper-llama2-sd" in told


def test_output_that_takes_all_signs_or_is_no_stream_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strict = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    escaping = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    for stream in (strict, escaping, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        tolerate_all_signs()
        print("×", end="", flush=True)
    assert (strict.errors, escaping.errors) == ("replace", "backslashreplace")
    assert strict.buffer.getvalue() == b"?"


def test_what_a_worker_process_prints_may_have_any_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of `reproduce` open streams of their own."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(work, "_worker", lambda *_: print("猫 × ✓"))
    work._member(ReproduceConfig(["languages"]), 0, 1)
    stream.flush()
    assert stream.buffer.getvalue().decode("cp1252").strip() == "? × ?"
