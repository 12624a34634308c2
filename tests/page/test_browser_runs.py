"""Runs and words in a real browser (run by name: pytest -m page): see `test_browser`."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge.page.models import OWN
from lavi_bridge.page.studio import AT_ONCE
from tests.page.test_browser import EVIL, Visitor, browser

__all__ = ["browser"]
pytestmark = pytest.mark.page
TRAIN = ["--language", "zoo:tiny-llama", "--vision", OWN, "--data", "shapes", "--tokens", "32"]
TRAIN += ["--device", "cpu", "--tracker", "none", "--log-every", "1", "--sample-steps", "2"]
TRAIN += ["--validation", "4", "--no-warm-start-report"]
LONG = 120_000  # milliseconds


def begin(out: Path, *flags: object) -> subprocess.Popen[bytes]:
    """A training run, started as a user starts it."""
    command = [sys.executable, "-m", "lavi_bridge", "train", *TRAIN, "--out", str(out)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*command, *map(str, flags)], **quiet)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done, one that goes on, and one with a hostile name."""
    root = tmp_path_factory.mktemp("page") / "runs"
    every = ["--sample-every", 4, "--validate-every", 4, "--save-every", 4]
    done = begin(root / "done", "--steps", 8, "--rank", 2, "--warm-start", 6, *every)
    assert done.wait(300) == 0
    evil = root / EVIL.replace("/", "\u2215")
    evil.mkdir()
    settings = {"language": EVIL, "vision": EVIL, "adapter": EVIL, "steps": 4}
    (evil / "config.json").write_text(json.dumps(settings))
    rows = [json.dumps({"step": n, "loss": 1 / n, EVIL: n}) + "\n" for n in (1, 2, 3)]
    (evil / "metrics.jsonl").write_text("".join(rows) + '{"step": 4, "lo')
    (evil / "ended.json").write_text(json.dumps({"how": "failed", "why": EVIL}))
    (root / "away").symlink_to("/etc")
    return root


@pytest.fixture(scope="module")
def training(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that goes on until somebody ends it."""
    flags = ["--steps", 100_000, "--rank", 4, "--batch-size", 2, "--save-every", 100_000]
    run = begin(folder / "going", *flags, "--sample-every", 4, "--validate-every", 4)
    yield run
    run.kill()
    run.wait()


@pytest.fixture(scope="module")
def place(folder: Path) -> Iterator[str]:
    """A page of the bundled image model and the runs; one drawing may wait."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "lavi_bridge", "page", OWN, str(folder), "--port", "0"]
    command += ["--waiting", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[0]
        server.terminate()


class Looking(Visitor):
    """Somebody who looks at runs."""

    def __init__(self, browser: Any, address: str, **screen: Any) -> None:
        super().__init__(browser, address, **screen)
        self.page.get_by_role("tab", name="Runs").click()
        self.page.wait_for_selector("#runs table")

    def pick(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()
        self.page.locator("#run h3", has_text=name).wait_for()

    def beside(self, name: str) -> None:
        self.page.get_by_role("button", name=f"compare with {name}").click()
        self.page.locator("#run h3", has_text=name).wait_for()

    def row(self, name: str, text: str) -> None:
        """Wait until a run's row says this."""
        rows = self.page.locator("#runs tr", has=self.page.get_by_role("button", name=name))
        rows.filter(has_text=text).first.wait_for(timeout=LONG)


def test_a_run_has_its_curves_samples_and_settings(browser: Any, place: str) -> None:
    visitor = Looking(browser, place)
    visitor.pick("done")
    titles = visitor.page.locator("#curves figcaption")
    visitor.page.locator("#curves figcaption", has_text="warm start").wait_for()
    assert {"loss", "validation loss", "learning rates"} <= set(titles.all_inner_texts())
    assert "at step 8" in visitor.page.inner_text("#samples")
    assert visitor.page.locator("#samples img").count() == 4
    slider = visitor.page.locator("#look input[type=range]")
    slider.focus()
    slider.press("ArrowLeft")
    visitor.page.locator("#samples", has_text="at step 4").wait_for()
    visitor.page.get_by_label("Logarithmic values").check()
    visitor.page.locator("#curves figcaption", has_text="loss (log)").first.wait_for()
    visitor.page.locator("input[type=range]").first.press("ArrowRight")
    visitor.page.wait_for_selector("#curves .lb-faint")
    visitor.page.get_by_text("all settings").click()
    assert "zoo:tiny-llama" in visitor.page.inner_text("#settings")


def test_a_run_grows_while_somebody_looks_until_it_is_stopped(
    browser: Any, place: str, training: subprocess.Popen[bytes]
) -> None:
    visitor = Looking(browser, place)
    visitor.row("going", "training")
    visitor.pick("going")
    visitor.page.locator("#curves figcaption").first.wait_for(timeout=LONG)

    def told() -> str:
        return str(visitor.page.locator("#curves figure").first.inner_text())

    before, until = told(), time.monotonic() + 60
    while told() == before:
        assert time.monotonic() < until, "nothing new in a minute"
        time.sleep(0.2)
    visitor.page.locator("#samples", has_text="at step 4").wait_for(timeout=LONG)
    visitor.page.locator("#samples", has_text="at step 8").wait_for(timeout=LONG)  # follows
    visitor.beside("done")
    visitor.page.locator("#samples .lb-pair").first.wait_for()
    first = visitor.page.locator("#samples .lb-pair").first
    assert first.locator("img").count() == 2
    assert visitor.page.locator("#curves figure").first.locator("polyline").count() == 2
    differ = visitor.page.inner_text("#settings")
    assert "settings differ" in differ
    assert "rank" in differ
    assert "zoo:tiny-llama" not in differ
    visitor.shoot("runs-light")
    dark = Looking(browser, place, scheme="dark")
    dark.pick("going")
    dark.beside("done")
    dark.shoot("runs-dark")
    training.send_signal(signal.SIGINT)
    visitor.row("going", "stopped")
    assert training.wait(60) != 0
    visitor.page.locator("#run", has_text="stopped at step").wait_for()


def test_a_runs_bridge_is_opened_to_draw(browser: Any, place: str) -> None:
    visitor = Looking(browser, place)
    visitor.pick("done")
    visitor.press("open")
    visitor.told("done draws, too")
    visitor.fill("Steps", "2")
    visitor.press("draw")
    visitor.told("done in")
    assert len(visitor.pictures()) == 2
    assert "zoo:tiny-llama → zoo:tiny-sd" in visitor.page.inner_text(".lb-cards")


def test_hostile_names_are_text(browser: Any, place: str) -> None:
    visitor = Looking(browser, place)
    visitor.page.locator("#runs button[data-run]", has_text="window.hacked").click()
    visitor.page.locator("#run h3", has_text="<script>").wait_for()
    visitor.page.locator("#curves figcaption", has_text="<script>").wait_for()
    assert "failed" in visitor.page.inner_text("#run")
    assert "away leads out of runs" in visitor.page.inner_text("#runs")
    assert visitor.page.evaluate("window.hacked") is None
    assert visitor.hosts - {""} == {place.partition("://")[2].strip("/")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_390_pixels_and_works_by_keyboard(browser: Any, place: str, scheme: str) -> None:
    visitor = Visitor(browser, place, width=390, scheme=scheme)
    visitor.page.get_by_label("Prompt", exact=True).focus()
    visitor.page.keyboard.press("Shift+Tab")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("#runs table")
    button = visitor.page.get_by_role("button", name="done", exact=True)
    for _ in range(20):
        visitor.page.keyboard.press("Tab")
        if button.evaluate("button => button === document.activeElement"):
            break
    visitor.page.keyboard.press("Enter")
    visitor.page.locator("#run h3", has_text="done").wait_for()
    visitor.page.wait_for_selector("#samples img")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    visitor.shoot(f"runs-390-{scheme}")


def test_no_file_of_a_run_is_served(place: str, folder: Path) -> None:
    for path in (folder / "done" / "config.json", folder / "away" / "passwd", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{place}/gradio_api/file={path}")


# ---- words


def asked(visitor: Visitor, prompt: str, steps: int) -> None:
    """Draw a prompt and ask which words moved it."""
    visitor.fill("Prompt", prompt)
    visitor.fill("Steps", str(steps))
    visitor.press("draw")
    visitor.told("done in")
    visitor.page.locator(".lb-ask").first.click()


def test_the_words_that_moved_a_picture_are_shown_and_kept(browser: Any, place: str) -> None:
    visitor = Visitor(browser, place)
    asked(visitor, "a <b>red</b> circle left of a blue square", 10)
    visitor.page.wait_for_selector(".lb-words .lb-bar")  # on the way
    visitor.page.wait_for_selector(".lb-heat", timeout=LONG)
    words = visitor.page.locator(".lb-words").inner_text()
    assert "<" in words
    assert visitor.page.locator(".lb-heat").count() == 10
    assert visitor.page.locator(".lb-words b").count() == 0
    visitor.shoot("words-light")
    visitor.fill("Prompt", "a green star")
    visitor.press("draw")
    visitor.page.wait_for_selector(".lb-heat", state="detached")
    visitor.told("done in")
    visitor.page.get_by_label("History").first.click()
    visitor.page.get_by_role("option", name="left of").click()
    visitor.page.wait_for_selector(".lb-heat")  # as it was


def test_weighing_words_can_be_stopped(browser: Any, place: str) -> None:
    visitor = Visitor(browser, place, width=390, scheme="dark")
    asked(visitor, "a red circle left of a blue square", 40)
    visitor.page.wait_for_selector(".lb-words .lb-bar")
    visitor.press("stop")
    visitor.told("stopped")
    assert visitor.page.locator(".lb-words").count() == 0
    visitor.fill("Steps", "2")
    visitor.press("draw")
    visitor.told("done in")


# ---- the queue


def test_who_comes_when_the_queue_is_full_is_told_so(browser: Any, place: str) -> None:
    """Last in this file: what it begins goes on until the page ends."""
    form = [[OWN.partition(":")[2]], "a", "0", "500", "1", "", "", "", "", 1, 1, 1]

    def waiting() -> int:
        with urllib.request.urlopen(f"{place}/gradio_api/queue/status") as answer:
            return int(json.load(answer)["queue_size"])

    for number in range(AT_ONCE + 1):
        call, kind = f"{place}/gradio_api/call/draw", {"Content-Type": "application/json"}
        asked = urllib.request.Request(call, json.dumps({"data": form}).encode(), kind)
        urllib.request.urlopen(asked).close()
        until = time.monotonic() + 60
        while waiting() != (number == AT_ONCE):  # the last of them has no place
            assert time.monotonic() < until
            time.sleep(0.05)
    visitor = Visitor(browser, place)
    visitor.press("draw")
    visitor.page.get_by_text("currently busy. Please try again").first.wait_for()
    visitor.shoot("busy-light")
