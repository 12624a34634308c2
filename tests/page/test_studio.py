"""The studio without a page: what is drawn, told, stopped, refused and shared."""

import re
import threading
from html import unescape
from pathlib import Path

import pytest
import torch

from lavi_bridge import Bridge, BridgeError
from lavi_bridge.bridge.drawing import draw, read_record, settings_of
from lavi_bridge.config import Sampling
from lavi_bridge.evaluate.influence import influence
from lavi_bridge.page.models import OWN, Known, Models, Stopped, known_of
from lavi_bridge.page.request import Request
from lavi_bridge.page.stops import Stops
from lavi_bridge.page.studio import (
    Done,
    Drawn,
    Event,
    Failed,
    Halted,
    Influenced,
    Read,
    Studio,
    Waiting,
    Weighed,
)
from lavi_bridge.page.tokens import readings
from lavi_bridge.page.words import strip
from lavi_bridge.page.world import verdict

PROMPT = "a red circle left of a blue square"
NAMES = ["tiny-sd", "again"]


@pytest.fixture(scope="module")
def studio() -> Studio:
    """Two columns, each the bundled image model with its own encoder."""
    return Studio(known_of([OWN, f"again={OWN}"]))


def drawn(studio: Studio, request: Request, names: list[str] = NAMES[:1]) -> list[Event]:
    return list(studio.draw(names, [request], threading.Event()))


def pictures(events: list[Event]) -> list[Done]:
    return [event for event in events if isinstance(event, Done)]


def test_a_picture_is_the_one_of_generate_with_its_record(studio: Studio, tmp_path: Path) -> None:
    request = Request(PROMPT, seed=3, steps=2)
    (done,) = pictures(drawn(studio, request))
    (tmp_path / done.file).write_bytes(done.png)
    (path,) = draw(Bridge.own(OWN, device="cpu"), [PROMPT], tmp_path / "by", request.sampling(()))
    assert path.name == done.file
    assert read_record(tmp_path / done.file) == read_record(path)
    assert path.read_bytes() == done.png


def test_steps_are_told_with_at_most_eight_pictures(studio: Studio) -> None:
    events = drawn(studio, Request(PROMPT, steps=20))
    steps = [event for event in events if isinstance(event, Drawn)]
    assert [event.step for event in steps] == list(range(1, 21))
    shown = [event.step for event in steps if event.picture is not None]
    assert len(shown) in (6, 7, 8)
    assert 20 not in shown


def test_previews_change_no_picture(studio: Studio) -> None:
    without = Studio(studio.known, previews=0)
    one, other = (pictures(drawn(s, Request(PROMPT, steps=3)))[0] for s in (studio, without))
    assert one.png == other.png


def test_stop_ends_all_and_the_next_one_draws(studio: Studio) -> None:
    stop = threading.Event()
    found = []
    for event in studio.draw(NAMES, [Request(PROMPT, steps=400)], stop):
        found.append(event)
        if isinstance(event, Drawn) and event.step == 3:
            stop.set()
    assert [event.column for event in found if isinstance(event, Halted)] == [0, 1]
    assert max(event.step for event in found if isinstance(event, Drawn)) < 100
    assert pictures(drawn(studio, Request(PROMPT, steps=1)))


def test_who_goes_away_leaves_the_model_free(studio: Studio) -> None:
    events = studio.draw(NAMES[:1], [Request(PROMPT, steps=400)], threading.Event())
    while not isinstance(next(events), Drawn):
        pass
    events.close()  # type: ignore[attr-defined]
    assert pictures(drawn(studio, Request(PROMPT, steps=1)))


@pytest.mark.parametrize(
    ("request_", "line"),
    [
        (Request(PROMPT, width=101), "image size 101×64 must be a positive multiple of"),
        (Request(PROMPT, scheduler="nix"), "no scheduler 'nix' for this vision model"),
    ],
)
def test_what_cannot_be_drawn_is_a_line(studio: Studio, request_: Request, line: str) -> None:
    (failed,) = (e for e in drawn(studio, request_) if isinstance(e, Failed))
    assert line in failed.line
    assert "\n" not in failed.line


def test_a_name_that_is_not_on_the_page_is_a_line(studio: Studio) -> None:
    (failed,) = drawn(studio, Request(PROMPT), ["../../etc"])[1:]
    assert isinstance(failed, Failed)
    assert failed.line == "no bridge '../../etc' on this page"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"prompt": " "}, "write a prompt first"),
        ({"prompt": "x" * 100_000}, "'prompt' has 100,000 characters; give at most 10,000"),
        ({"negative": "x" * 100_000}, "'negative' has 100,000 characters"),
        ({"seed": -1}, "'seed' must be at least 0, not -1"),
        ({"seed": str(2**63)}, "'seed' must be below 9223372036854775808"),
        ({"seed": "1.5"}, "'seed' must be a whole number, not '1.5'"),
        ({"steps": float("nan")}, "'steps' must be a whole number, not 'nan'"),
        ({"steps": "0"}, "'steps' must be at least 1, not 0"),
        ({"steps": "9" * 5000}, "'steps' must be a whole number, not '99999"),
        ({"guidance": "inf"}, "'guidance' must be a number, not 'inf'"),
        ({"guidance": [4]}, r"'guidance' must be a number, not '\[4\]'"),
        ({"width": 1e20}, "'width' must be at most 2048"),
        ({"width": 1e300}, r"'width' must be a whole number, not '1e\+300'"),
        ({"height": "<b>"}, "'height' must be a whole number, not '<b>'"),
        ({"vision_scale": 99}, "'vision_scale' must be at most 4, not 99"),
        ({"scheduler": 3}, "'scheduler' must be text"),
        ({"device": "cuda"}, "unknown setting 'device'"),
    ],
)
def test_a_bad_setting_is_a_line_that_names_it(given: dict[str, object], line: str) -> None:
    with pytest.raises(BridgeError, match=line) as caught:
        Request.of({"prompt": PROMPT} | given)
    assert len(str(caught.value)) < 200


def test_a_form_may_give_text_for_numbers_and_nothing_for_the_models_own() -> None:
    given = {"prompt": PROMPT, "seed": str(2**63 - 1), "steps": 20.0, "guidance": "4", "width": ""}
    expected = Request(PROMPT, seed=2**63 - 1, steps=20, guidance=4.0)
    assert Request.of(given) == expected


def test_one_word_is_changed_or_left_out() -> None:
    request = Request("a red circle left of a reddish ring")
    assert request.changed("RED", "green").prompt == "a green circle left of a reddish ring"
    assert request.changed("red", "").prompt == "a circle left of a reddish ring"
    with pytest.raises(BridgeError, match="the prompt has no word 'blue'"):
        request.changed("blue", "green")


def test_strengths_are_left_alone_where_a_bridge_has_none() -> None:
    request = Request(PROMPT, language_scale=0.5, vision_scale=2.0)
    sampling = request.sampling(("language_scale",))
    assert (sampling.language_scale, sampling.vision_scale) == (0.5, 1.0)


def test_a_strength_changes_the_picture_of_a_bridge_that_has_it(tmp_path: Path) -> None:
    bridge = Bridge.connect("zoo:tiny-llama", OWN, rank=2, vision_rank=0, tokens=32, device="cpu")
    for weight in bridge.parts()["language"]:
        torch.nn.init.normal_(weight)
    bridge.save(tmp_path / "made")
    studio = Studio(known_of([str(tmp_path / "made")]))
    asked = [Request(PROMPT, steps=1), Request(PROMPT, steps=1, language_scale=0.0)]
    asked.append(Request(PROMPT, steps=1, vision_scale=0.0))
    trained, frozen, other = (pictures(drawn(studio, one, ["made"]))[0] for one in asked)
    assert frozen.record["language_scale"] == 0.0
    assert frozen.picture.tobytes() != trained.picture.tobytes()
    assert other.png == trained.png


def test_two_at_once_do_not_mix(studio: Studio) -> None:
    """Each picture is that of its own settings, drawn alone."""
    asked = [Request(PROMPT, seed=seed, steps=2 + seed % 2, guidance=seed) for seed in range(6)]
    alone = [pictures(drawn(studio, request))[0].png for request in asked]
    together: dict[int, list[bytes]] = {}

    def visit(seed: int) -> None:
        found = pictures(drawn(studio, asked[seed], NAMES))
        together[seed] = [done.png for done in found]

    visitors = [threading.Thread(target=visit, args=(seed,)) for seed in range(6)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert together == {seed: [png, png] for seed, png in enumerate(alone)}


# ---- which words moved a picture


def weighed(studio: Studio, request: Request, name: str = NAMES[0]) -> list[Event]:
    return list(studio.influence(name, request, threading.Event()))


def test_words_are_weighed_one_by_one(studio: Studio) -> None:
    events = weighed(studio, Request("a red circle", seed=3, steps=2))
    counts = [(event.done, event.of) for event in events if isinstance(event, Weighed)]
    assert counts == [(n, 7) for n in range(1, 8)]
    assert isinstance(events[-1], Influenced)
    assert [word.word for word in events[-1].words] == ["a", "red", "circle"]
    _, words = influence(
        Bridge.own(OWN, device="cpu"),
        "a red circle",
        seed=3,
        batch_size=1,
        **settings_of(Bridge.own(OWN, device="cpu"), Sampling(steps=2)),
    )
    assert [word.change for word in events[-1].words] == [word.change for word in words]


def test_weighing_words_stops_and_the_next_one_draws(studio: Studio) -> None:
    stop, found = threading.Event(), []
    for event in studio.influence(NAMES[0], Request(PROMPT, steps=200), stop):
        found.append(event)
        if isinstance(event, Waiting):
            threading.Timer(0.2, stop.set).start()
    assert isinstance(found[-1], Halted)
    assert not [event for event in found if isinstance(event, Influenced)]
    assert pictures(drawn(studio, Request(PROMPT, steps=1)))


def test_a_prompt_without_words_is_a_line(studio: Studio) -> None:
    events = weighed(studio, Request("!?", steps=1))
    assert isinstance(events[-1], Failed)
    assert "without words" in events[-1].line


def test_the_strip_is_the_prompt_and_all_of_it_is_text(studio: Studio) -> None:
    prompt = "a <b>red</b> & blue"
    found = weighed(studio, Request(prompt, steps=1))[-1]
    assert isinstance(found, Influenced)
    html = strip(prompt, found.words)
    assert "<b>" not in html
    assert html.count('class="lb-heat"') == 5
    assert "--heat:100%" in html
    plain = re.sub(r"<small>.*?</small>|<[^>]*>", "", html.partition("</p>")[0])
    assert unescape(plain) == prompt


# ---- models


def shelf(memory: int) -> Models:
    """Three bridges that all are the same; each is loaded as one of its own."""
    known = [Known(name, OWN, "", OWN, (), True) for name in "abc"]
    return Models(known, memory, lambda one: Bridge.own(one.source, device="cpu"))


def test_the_least_recently_used_goes_beyond_the_memory() -> None:
    models, stop = shelf(2**62), threading.Event()
    with models.using("a", stop) as model:
        size = model.size
    models.memory = 2 * size
    for name in "bac":
        with models.using(name, stop):
            pass
    assert models.loaded == ["a", "c"]
    assert models.size == 2 * size


def test_what_is_in_use_stays() -> None:
    models, stop = shelf(2**62), threading.Event()
    for name in "abc":
        with models.using(name, stop):
            pass
    with models.using("a", stop):
        models.memory = 1
        with models.using("b", stop):
            assert models.loaded == ["a", "b"]
    with models.using("b", stop):
        assert models.loaded == ["b"]


def test_a_model_is_loaded_while_nobody_draws_and_who_waits_for_that_can_stop() -> None:
    models, stop = shelf(2**62), threading.Event()
    with models.using("a", stop):
        stop.set()
        with pytest.raises(Stopped), models.using("b", stop):
            pass
    stop.clear()
    with models.using("b", stop):
        assert models.loaded == ["a", "b"]


def test_who_waits_for_a_model_can_stop() -> None:
    models, stop = shelf(2**62), threading.Event()
    with models.using("a", stop):
        stop.set()
        with pytest.raises(Stopped), models.using("a", stop):
            pass


def test_at_most_four_under_different_names(tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="a page shows at most 4 bridges, not 5"):
        known_of([f"{n}={OWN}" for n in range(5)])
    with pytest.raises(BridgeError, match="two bridges are called 'tiny-sd'"):
        known_of([OWN, OWN])
    with pytest.raises(BridgeError, match="is no bridge"):
        known_of([str(tmp_path)])


def test_a_bridges_strengths_are_known_before_its_weights_are_read() -> None:
    (known,) = known_of(["zoo:minilm-tiny-sd"])
    assert (known.name, known.strengths, known.world) == (
        "minilm-tiny-sd",
        ("language_scale",),
        True,
    )


# ---- tokens and scores


def test_a_bridge_and_its_own_encoder_read_the_prompt_each_in_its_way(tmp_path: Path) -> None:
    Bridge.connect("zoo:tiny-llama", OWN, rank=2, tokens=8, device="cpu").save(tmp_path / "made")
    studio = Studio(known_of([str(tmp_path / "made")]))
    with pytest.warns(UserWarning, match="longer than 8 tokens"):
        events = drawn(studio, Request("a red circle left of a blue square", steps=1), ["made"])
    (read,) = (event for event in events if isinstance(event, Read))
    bridge, own = read.readings
    assert [t.text for t in bridge.tokens if t.kind == "word"][:3] == ["a", "red", "circle"]
    assert bridge.limit == 8
    assert bridge.cut.endswith("square")
    assert own.reader == f"{OWN}/text_encoder"
    assert (own.cut, own.padding, own.masked) == ("", 32 - own.needed, 0)


def test_masked_padding_is_told_apart_from_padding_that_is_read() -> None:
    torch.manual_seed(0)
    bridge = Bridge.own("zoo:tiny-pixart", device="cpu")
    (read,) = readings(bridge, None, "a red circle")
    assert read.padding == 0
    assert read.masked == read.limit - read.needed > 0


def test_the_score_is_that_of_prompts_that_the_scorer_knows(studio: Studio) -> None:
    (done,) = pictures(drawn(studio, Request("a red circle", steps=20)))
    assert done.verdict is not None
    assert done.verdict == verdict(done.picture, "a red circle")
    assert verdict(done.picture, "a cat on a mat") is None
    assert verdict(done.picture.resize((128, 128)), "a red circle") is None


def test_what_somebody_begins_ends_what_they_had_going_on_and_nobody_elses() -> None:
    stops = Stops()
    first, others = stops.new("a"), stops.new("b")
    second = stops.new("a")
    assert (first.is_set(), second.is_set(), others.is_set()) == (True, False, False)
    assert stops.is_newest("a", second)
    assert not stops.is_newest("a", first)
    stops.done("a", second)
    stops.stop("b")
    assert others.is_set()
