"""The page over HTTP, as Gradio's own client asks it (run by name: pytest -m page)."""

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lavi_bridge.page.cards import Card, Shot, difference, status
from lavi_bridge.page.history import MOST_ENTRIES, Entry, added
from lavi_bridge.page.models import known_of
from lavi_bridge.page.request import Request
from lavi_bridge.page.studio import Done, Failed, Read, Studio
from lavi_bridge.page.tokens import Reading, Token
from tests.page.conftest import SOURCES, Served

served_only = pytest.mark.page
EVIL = '<img src=x onerror="alert(1)"><script>alert(1)</script>'


class Asking:
    """Somebody who asks a page that runs here."""

    def __init__(self, address: str) -> None:
        gradio_client = pytest.importorskip("gradio_client")
        self.client = gradio_client.Client(address, verbose=False)
        self.handle = gradio_client.handle_file

    def ask(self, name: str, *more: Any, ticked: list[str] | None = None, **given: Any) -> Any:
        form = {"prompt": "a red circle", "seed": "0", "steps": "2", "guidance": "4"}
        form |= {"negative": "", "height": "", "width": "", "scheduler": ""}
        form |= {"language_scale": 1, "vision_scale": 1, "adapter_scale": 1} | given
        ticked = ["tiny-sd", "second"] if ticked is None else ticked
        line, *cards = self.client.predict(ticked, *form.values(), *more, api_name=f"/{name}")
        return line, [card for card in cards[:2] if isinstance(card, str)]


@pytest.fixture(scope="module")
def visitor(address: str) -> Asking:
    return Asking(address)


@served_only
def test_both_draw_and_the_picture_is_in_the_page(visitor: Asking) -> None:
    line, cards = visitor.ask("draw")
    assert "done in" in line
    assert [card.count("data:image/png") for card in cards] == [2, 2]  # shown, and to keep


@served_only
def test_a_word_is_changed(visitor: Asking) -> None:
    _, cards = visitor.ask("compare", "red", "green")
    assert all("a green circle" in card and "difference of both" in card for card in cards)


@served_only
@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"width": "99999"}, "&#39;width&#39; must be at most 2048"),
        ({"prompt": "x" * 100_000}, "has 100,000 characters"),
        ({"ticked": ["../../etc"]}, None),
        ({"ticked": []}, "tick a bridge first"),
        ({"seed": EVIL}, "&lt;img src=x onerror="),
    ],
)
def test_bad_input_is_a_line(visitor: Asking, given: dict[str, Any], line: str | None) -> None:
    if line is None:  # refused by Gradio itself
        with pytest.raises(Exception, match=r"not in the list of choices|error"):
            visitor.ask("draw", **given)
    else:
        told, cards = visitor.ask("draw", **given)
        assert 'role="alert"' in told
        assert line in told
        assert not cards


@served_only
def test_markup_is_escaped(visitor: Asking) -> None:
    _, cards = visitor.ask("draw", prompt=EVIL)
    assert all("<script>" not in card and "<img src=x" not in card for card in cards)
    assert "&lt;" in cards[0]


@served_only
def test_a_file_of_prompts_is_drawn(visitor: Asking, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a red circle\n\na blue square\n<b>bold</b>\n", encoding="utf-8")
    _, cards = visitor.ask("sheet", visitor.handle(str(path)))
    assert "&lt;b&gt;bold" in cards[0]
    assert cards[0].count("download=") == 3


@served_only
@pytest.mark.parametrize(
    ("content", "line"),
    [(b"\xff\xfe\x00", "is not UTF-8 text"), (b"\n", "no prompts"), (b"a\n" * 65, "at most 64")],
)
def test_a_file_that_is_no_sheet_is_a_line(
    visitor: Asking, tmp_path: Path, content: bytes, line: str
) -> None:
    path = tmp_path / "sheet.txt"
    path.write_bytes(content)
    told, _ = visitor.ask("sheet", visitor.handle(str(path)))
    assert line in told
    assert "gradio" not in told  # where it lies here is nobody's business


@served_only
@pytest.mark.parametrize("place", ["file", "prompt"])
@pytest.mark.parametrize("path", ["{here}/secret.txt", "/etc/passwd", "http://127.0.0.1:9/x"])
def test_no_file_is_read_that_was_not_sent(
    address: str, tmp_path: Path, place: str, path: str
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    file = {"path": path.format(here=tmp_path), "meta": {"_type": "gradio.FileData"}}
    form: list[Any] = [["tiny-sd"], "a", "0", "1", "1", "", "", "", "", 1, 1, 1, None]
    form[1 if place == "prompt" else -1] = file
    call = f"{address}/gradio_api/call/sheet"
    kind = {"Content-Type": "application/json"}
    asked = urllib.request.Request(call, json.dumps({"data": form}).encode(), kind)
    with urllib.request.urlopen(asked) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as answer:
        told = answer.read().decode()
    assert "event: error" in told
    assert "a secret" not in told
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{address}/gradio_api/file={secret}")


@served_only
def test_nothing_is_loaded_from_elsewhere(address: str) -> None:
    with urllib.request.urlopen(address) as answer:
        policy, page = answer.headers["Content-Security-Policy"], answer.read().decode()
    assert policy.startswith("default-src 'self'")
    assert "https:" not in policy
    assert "fonts.googleapis" not in page


@served_only
def test_eight_at_once_do_not_mix_and_memory_stays(served: Served) -> None:
    """50 drawings of eight visitors: each gets the pictures of its own settings."""
    studio = Studio(known_of(SOURCES))
    expected: dict[int, list[str]] = {}
    for seed in range(10):
        request = Request("a red circle", seed, 2, 4.0)
        events = studio.draw([one.name for one in studio.known], [request], threading.Event())
        expected[seed] = [event.file for event in events if isinstance(event, Done)]
    visitors = [Asking(served.address) for _ in range(8)]
    wrong: list[str] = []

    def visit(number: int, seeds: list[int]) -> None:
        for seed in seeds:
            _, cards = visitors[number].ask("draw", seed=str(seed))
            both = zip(expected[seed], cards, strict=True)
            wrong.extend(file for file, card in both if file not in card)

    sizes = []
    for _ in range(3):
        threads = [
            threading.Thread(target=visit, args=(n, [s % 10 for s in range(n, 50, 8)]))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sizes.append(served.resident)
    assert not wrong
    assert sizes[2] < 1.1 * sizes[0], sizes
    print("resident MB after each 50:", [round(size / 1e6) for size in sizes])


# ---- without Gradio


def test_a_card_escapes_what_people_write() -> None:
    (known,) = known_of([f"<i>{EVIL[:4]}=zoo:tiny-sd"])
    card = Card(known, [Shot(EVIL), Shot("b")])
    token = Reading(EVIL, (Token(EVIL, "word"),), 4, 9, EVIL, 0, 0)
    card.take(Read(0, 0, (token,)))
    card.take(Failed(0, 1, EVIL))
    assert "<script" not in card.html() + status(EVIL)
    assert "<img" not in card.html() + status(EVIL)
    assert "<i>" not in card.html()


def test_the_history_keeps_the_newest_with_all_settings() -> None:
    history: list[Entry] = []
    for number in range(1, MOST_ENTRIES + 3):
        history = added(history, Entry(number, Request("a", seed=number), ("x",), ("card",)))
    assert [one.number for one in history] == list(range(MOST_ENTRIES + 2, 2, -1))
    assert history[0].title == f"{MOST_ENTRIES + 2} · seed {MOST_ENTRIES + 2} · a"
    large = Entry(99, Request("a"), ("x",), ("x" * 64_000_000,))
    assert added(history, large) == [large]


def test_a_difference_counts_what_has_changed() -> None:
    from PIL import Image

    a, b = Image.new("RGB", (4, 4), "black"), Image.new("RGB", (4, 4), "black")
    b.paste((255, 0, 0), (0, 0, 2, 4))
    image, mean, share = difference(a, b)
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert (mean, share) == (255 / 6, 50.0)
