"""What a page shows of drawings, as HTML: whatever comes from people is escaped."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup
from PIL import ImageChops, ImageStat

from lavi_bridge.page.studio import Done, Drawn, Event, Failed, Halted, Read, Waiting
from lavi_bridge.show.html import data_url

if TYPE_CHECKING:
    from PIL.Image import Image

    from lavi_bridge.page.models import Known
    from lavi_bridge.page.tokens import Reading

SHOWN_CUT = 160
"""Characters of an unread end that are shown."""
SHOWN_PROMPT = 120
EMPTY = Markup('<div class="lb-frame"></div>')


@dataclass
class Shot:
    """One picture of a card, as far as it is drawn."""

    prompt: str
    state: str = ""
    step: int = 0
    of: int = 0
    picture: str = ""
    """As a data URL: the last preview, or the picture with its record."""
    done: Done | None = None
    error: str = ""
    readings: tuple[Reading, ...] = ()


@dataclass
class Card:
    """What one bridge has drawn: a picture for each request."""

    known: Known
    shots: list[Shot] = field(default_factory=list)
    compares: bool = False
    """Whether the second picture is shown beside the first with what differs."""
    ended: bool = False
    """Whether all is drawn, so that it can be asked which words moved a picture."""

    def take(self, event: Event) -> None:
        """Note what has happened."""
        shot = self.shots[event.row]
        match event:
            case Waiting():
                shot.state = "waiting for the model"
            case Read():
                shot.readings, shot.state = event.readings, "reading"
            case Drawn():
                shot.step, shot.of, shot.state = event.step, event.of, "drawing"
                if event.picture is not None:
                    shot.picture = data_url(event.picture, jpeg=True)
            case Done():
                coded = base64.b64encode(event.png).decode()
                shot.picture, shot.done = f"data:image/png;base64,{coded}", event
                shot.state = ""
            case Failed():
                shot.error, shot.state = event.line, ""
            case Halted():
                shot.state = "stopped"

    def html(self) -> str:
        """The card; a sheet of several prompts has small pictures and no tokens."""
        head = Markup('<h3>{}</h3><p class="lb-ids">{}</p>').format(
            self.known.name,
            f"{self.known.language} → {self.known.vision}"
            if self.known.language
            else f"{self.known.vision}, its own encoder",
        )
        if not self.shots:
            return str(Markup('<article class="lb-card">{}{}</article>').format(head, EMPTY))
        many = len(self.shots) > 2
        asks = self.ended and not many
        shots = Markup("").join(
            self._shot(shot, named=len(self.shots) > 1, row=row if asks else None)
            for row, shot in enumerate(self.shots)
        )
        words = [Markup(words_place(row)) for row in range(len(self.shots)) if asks]
        body = Markup('<div class="{}">{}{}</div>').format(
            "lb-shots lb-sheet" if many else "lb-shots", shots, self._difference()
        )
        tokens = Markup("")
        if not many:
            rows = self.shots if self.compares else self.shots[:1]
            tokens = Markup("").join(_tokens(r) for shot in rows for r in shot.readings)
        parts = head, body, Markup("").join(words), tokens
        return str(Markup('<article class="lb-card">{}{}{}{}</article>').format(*parts))

    def _shot(self, shot: Shot, *, named: bool, row: int | None) -> Markup:
        """One picture; with its `row`, also a button that asks which words moved it."""
        picture = EMPTY
        if shot.picture:
            picture = Markup('<div class="lb-frame"><img alt="{}" src="{}"></div>').format(
                _short(shot.prompt), shot.picture
            )
        part = 100 * shot.step // shot.of if shot.of else 0
        bar = Markup("")
        if shot.done is None and not shot.error:
            bar = Markup('<div class="lb-bar"><i style="width:{}%"></i></div>').format(part)
        told = f"{shot.state} {shot.step}/{shot.of}" if shot.of and shot.state else shot.state
        line = Markup('<p class="lb-line">{}</p>').format(told)
        if shot.error:
            line = Markup('<p class="lb-line lb-error" role="alert">{}</p>').format(shot.error)
        elif shot.done is not None:
            ask = Markup("")
            if row is not None:
                button = ' · <button type="button" class="lb-ask" data-row="{}">{}</button>'
                ask = Markup(button).format(row, "Which words moved it")
            line = Markup(
                '<p class="lb-line">{}{:.1f} s · <a download="{}" href="{}">PNG</a>{}</p>'
            )
            done = shot.done
            line = line.format(_score(done), done.seconds, done.file, shot.picture, ask)
        title = Markup('<p class="lb-prompt">{}</p>').format(_short(shot.prompt)) if named else ""
        return Markup('<div class="lb-shot">{}{}{}{}</div>').format(title, picture, bar, line)

    def _difference(self) -> Markup:
        """What differs between the first two pictures, where they are there to be compared."""
        pictures = [shot.done.picture for shot in self.shots if shot.done is not None]
        if not self.compares or len(pictures) != 2:
            return Markup("")
        image, mean, share = difference(*pictures)
        return Markup(
            '<div class="lb-shot"><p class="lb-prompt">difference</p><div class="lb-frame">'
            '<img alt="difference of both pictures" src="{}"></div>'
            '<p class="lb-line">mean {:.1f} of 255 · {:.0f} % of pixels</p></div>'
        ).format(data_url(image), mean, share)


def words_place(row: int) -> str:
    """What a card has in place of the words that moved a picture, before they are known."""
    return f"<!--words {row}-->"


def difference(a: Image, b: Image) -> tuple[Image, float, float]:
    """Two pictures -> |a - b|, its mean (0 to 255), and the percentage of pixels above 16."""
    found = ImageChops.difference(a.convert("RGB"), b.convert("RGB"))
    mean = sum(ImageStat.Stat(found).mean) / 3
    bands = found.split()
    most = ImageChops.lighter(ImageChops.lighter(bands[0], bands[1]), bands[2])
    counts = most.histogram()
    return found, mean, 100 * sum(counts[17:]) / max(1, sum(counts))


def status(line: str, *, error: bool = False) -> str:
    """The line above all cards."""
    kind = Markup(' class="lb-error" role="alert"') if error else Markup(' role="status"')
    return str(Markup("<p{}>{}</p>").format(kind, line)) if line else ""


def _score(done: Done) -> Markup:
    """The exact score, where there is one."""
    if done.verdict is None:
        return Markup("")
    kind, word = ("lb-right", "exact") if done.verdict.exact else ("lb-wrong", "not exact")
    return Markup('<b class="{}">{}</b> {:.0f} % of facts · ').format(
        kind, word, 100 * done.verdict.partial
    )


def _tokens(reading: Reading) -> Markup:
    """The tokens as chips, then what is padding and what is cut."""
    chips = Markup("").join(
        Markup('<span class="lb-{}">{}</span>').format(t.kind, t.text) for t in reading.tokens
    )
    rest = []
    if reading.padding:
        rest.append(Markup('<span class="lb-pad">+{} padding, read</span>').format(reading.padding))
    if reading.masked:
        text = Markup('<span class="lb-masked">+{} padding, masked</span>')
        rest.append(text.format(reading.masked))
    if reading.needed > reading.limit:
        end = reading.cut[:SHOWN_CUT] + "…" * (len(reading.cut) > SHOWN_CUT)
        over = reading.needed - reading.limit
        cut = Markup('<span class="lb-cut" title="not read">{} tokens cut: <s>{}</s></span>')
        rest.append(cut.format(over, end))
    return Markup(
        '<details class="lb-tokens" open><summary>{} <small>{} of {} tokens</small></summary>'
        "<div>{}{}</div></details>"
    ).format(
        reading.reader,
        min(reading.needed, reading.limit),
        reading.limit,
        chips,
        Markup("").join(rest),
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_PROMPT else text[: SHOWN_PROMPT - 1] + "…"
