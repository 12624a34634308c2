"""The page in a real browser (run by name: pytest -m page): needs Gradio, Playwright, Chromium.

The screenshots go where PAGE_SHOTS says, for docs/page.md and for whoever wants to look.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge.bridge.drawing import read_record

pytestmark = pytest.mark.page
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROMPT = "a large red circle left of a small blue square"
PATIENCE = 20_000  # milliseconds
EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>${window.hacked=1}'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Visitor:
    """Somebody with a browser of their own."""

    def __init__(self, browser: Any, address: str, *, width: int = 1440, scheme: str = "light"):
        size = {"width": width, "height": 1000}
        self.page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.hosts: set[str] = set()
        self.page.on("request", lambda r: self.hosts.add(r.url.partition("://")[2].split("/")[0]))
        self.page.goto(address)
        self.page.wait_for_selector("#draw")

    def fill(self, label: str, value: str) -> None:
        self.page.get_by_label(label, exact=True).first.fill(value)

    def unfold(self, title: str) -> None:
        self.page.get_by_role("button", name=title, exact=False).first.click()

    def press(self, button: str) -> None:
        self.page.click(f"#{button}")

    def told(self, text: str) -> str:
        """Wait until the line says this."""
        self.page.locator("#status", has_text=text).wait_for()
        return self.page.inner_text("#status")

    def pictures(self) -> list[str]:
        images = self.page.locator(".lb-frame img")
        return [images.nth(i).get_attribute("src") for i in range(images.count())]

    def shoot(self, name: str) -> None:
        folder = os.environ.get("PAGE_SHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_two_bridges_draw_and_all_comes_from_here(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address)
    visitor.press("draw")
    visitor.page.wait_for_selector(".lb-frame img[src^='data:image/jpeg']")  # on the way
    visitor.told("done in")
    assert len(visitor.pictures()) == 2
    assert visitor.hosts - {""} == {address.partition("://")[2].strip("/")}
    visitor.shoot("wide-light")


def test_one_word_is_changed_and_the_difference_shown(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address)
    visitor.unfold("Change one word")
    visitor.fill("Word of the prompt", "red")
    visitor.fill("Instead", "yellow")
    visitor.press("both")
    visitor.told("done in")
    assert len(visitor.pictures()) == 6
    assert "a large yellow circle" in visitor.page.inner_text(".lb-cards")
    assert visitor.page.locator("text=% of pixels").count() == 2
    visitor.shoot("word-light")


def test_stop_ends_it_in_the_middle_and_the_next_drawing_goes_on(
    browser: Any, address: str
) -> None:
    visitor = Visitor(browser, address)
    visitor.fill("Steps", "500")
    visitor.press("draw")
    visitor.told("step")
    visitor.press("stop")
    visitor.told("stopped")
    visitor.fill("Steps", "4")
    visitor.press("draw")
    visitor.told("done in")


def test_history_goes_back_and_the_download_has_its_record(
    browser: Any, address: str, tmp_path: Path
) -> None:
    visitor = Visitor(browser, address)
    visitor.fill("Seed", "7")
    visitor.fill("Steps", "4")
    visitor.press("draw")
    visitor.told("done in")
    first = visitor.pictures()
    visitor.fill("Prompt", "a green star")
    visitor.fill("Seed", "8")
    visitor.press("draw")
    visitor.page.wait_for_function(
        "[...document.querySelectorAll('.lb-frame img')].some(i => i.alt == 'a green star')"
    )
    visitor.told("done in")
    assert visitor.pictures() != first
    visitor.page.get_by_label("History").first.click()
    visitor.page.get_by_role("option", name="seed 7").click()
    visitor.told("drawing 1, as it was")
    assert visitor.pictures() == first
    assert visitor.page.get_by_label("Prompt", exact=True).input_value() == PROMPT
    assert visitor.page.get_by_label("Seed", exact=True).input_value() == "7"
    with visitor.page.expect_download() as downloading:
        visitor.page.locator("a[download]").first.click()
    path = tmp_path / downloading.value.suggested_filename
    downloading.value.save_as(path)
    record = read_record(path)
    assert record is not None
    assert (record["prompt"], record["seed"], record["steps"]) == (PROMPT, 7, 4)


def test_a_bad_size_is_a_line_on_the_page(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address, width=390, scheme="dark")
    visitor.unfold("More settings")
    visitor.fill("Width", "99999")
    visitor.press("draw")
    visitor.told("'width' must be at most 2048, not 99999")
    visitor.fill("Width", "101")
    visitor.press("draw")
    visitor.told("2 could not be drawn")
    assert "image size 101×64 must be a positive multiple" in visitor.page.inner_text(".lb-card")
    visitor.shoot("error-narrow-dark")


def test_markup_in_a_prompt_is_text(browser: Any, address: str) -> None:
    visitor = Visitor(browser, address)
    visitor.fill("Prompt", EVIL)
    visitor.fill("Steps", "2")
    visitor.press("draw")
    visitor.told("done in")
    assert "<script>" in visitor.page.inner_text(".lb-tokens") or visitor.pictures()
    assert visitor.page.evaluate("window.hacked") is None


def test_a_sheet_is_drawn_and_what_is_no_text_is_a_line(
    browser: Any, address: str, tmp_path: Path
) -> None:
    visitor = Visitor(browser, address)
    visitor.fill("Steps", "4")
    visitor.unfold("Sheet of prompts")
    good, bad = tmp_path / "prompts.txt", tmp_path / "<b>bad.txt"
    good.write_text("a red circle\na blue square\na green star\n")
    bad.write_bytes(b"\xff\xfe\x00PNG")
    upload = visitor.page.locator("input[type=file]").first
    upload.set_input_files(good)
    visitor.page.wait_for_selector("text=prompts.txt")
    visitor.press("sheet")
    visitor.told("done in")
    assert len(visitor.pictures()) == 6
    visitor.shoot("sheet-light")
    visitor.page.get_by_label("Clear").first.click()
    visitor.page.locator("input[type=file]").first.set_input_files(bad)
    visitor.page.wait_for_selector("text=bad.txt")
    visitor.press("sheet")
    visitor.told("is not UTF-8 text")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1440, "dark")])
def test_it_fits_every_width_and_works_by_keyboard(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    visitor = Visitor(browser, address, width=width, scheme=scheme)
    visitor.page.get_by_label("Prompt", exact=True).focus()
    for _ in range(10):
        visitor.page.keyboard.press("Tab")
        if visitor.page.evaluate("document.activeElement.id") == "draw":
            break
    visitor.page.keyboard.press("Enter")
    visitor.told("done in")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    visitor.shoot(f"{width}-{scheme}")
