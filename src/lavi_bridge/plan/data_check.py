"""`lavi-bridge data check`: what is wrong with a data set, and how it meets a pair of models."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lavi_bridge.bridge.bridge import Bridge
from lavi_bridge.data import BadImage, Source, buckets, nearest_bucket
from lavi_bridge.data.examples import in_threads
from lavi_bridge.data.sources.finding import left_out
from lavi_bridge.data.sources.opening import open_source
from lavi_bridge.files.atomic import make_folder, write_text
from lavi_bridge.languages.loading.tokenizer import load_tokenizer, unknown_token
from lavi_bridge.running.progress import progress
from lavi_bridge.show.html import data_url, render
from lavi_bridge.show.output import whole
from lavi_bridge.version import __version__

SHOWN = 24
"""Pictures on the page."""
BARS = 12
THUMBNAIL = 160


@dataclass
class DataReport:
    """What was found."""

    data: str
    pictures: int
    captions: int
    errors: list[str]
    """Malformed lines and unreadable pictures, each with its file and line."""
    resolution: int | None
    smaller: int
    """Pictures with a side shorter than the resolution, which training would enlarge."""
    shorter_sides: dict[str, int]
    """Least, median and greatest, in pixels."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Pictures by the bucket (width×height) that they would fall to."""
    words: dict[str, int] = field(default_factory=dict)
    """Least, median and greatest number of words of a caption."""
    token_limit: int | None = None
    """Tokens that the pair reads."""
    tokens: dict[str, int] = field(default_factory=dict)
    """Least, median and greatest number of tokens of a caption."""
    truncated: int = 0
    """Captions that lose their end."""
    longest: list[str] = field(default_factory=list)
    """The longest captions."""
    left_out: list[str] = field(default_factory=list)
    """What of the data is in no sample: reason, number, first names."""

    def __str__(self) -> str:
        lines = [
            f"{self.pictures:,} pictures, {self.captions:,} captions in {self.data}",
            f"shorter side {_range(self.shorter_sides)} px"
            + (f"; {self.smaller:,} under {self.resolution} px" if self.resolution else ""),
        ]
        lines.append(f"captions of {_range(self.words)} words")
        if self.token_limit:
            share = self.truncated / max(1, self.captions)
            lines.append(
                f"captions of {_range(self.tokens)} tokens; {self.truncated:,} ({share:.1%}) are "
                f"longer than the pair's {self.token_limit} and lose their end"
            )
        if self.sizes:
            most = sorted(self.sizes.items(), key=lambda item: -item[1])[:BARS]
            lines.append("with --buckets: " + ", ".join(f"{k} ({v:,})" for k, v in most))
        lines += [f"left out, {line}" for line in self.left_out]
        lines.append(f"{len(self.errors):,} errors" + (":" if self.errors else ""))
        lines += [f"  {error}" for error in self.errors[:20]]
        if len(self.errors) > 20:
            lines.append(f"  and {len(self.errors) - 20:,} more in report.json")
        return "\n".join(lines)


def check(
    data: str,
    *,
    language: str | None = None,
    vision: str | None = None,
    resolution: int | None = None,
    tokens: int | None = None,
    template: str | None = None,
    out: Path | None = None,
    trust_remote_code: bool = False,
) -> DataReport:
    """Read every picture and every caption of a data set.

    Args:
        language, vision: the pair whose token limit captions are held against; configs and
            tokenizer alone are read.
        resolution: of the training images; the vision model's own by default.
        tokens: that a prompt may have; the vision model's own number by default.
        template: a text before every caption, whose tokens do not count.
        out: folder for `report.json` and `index.html`.
        trust_remote_code: run code that comes with the language model.

    Raises:
        BridgeError: the data set or the pair cannot be opened at all.
    """
    if out:
        make_folder(out)
    errors: list[str] = []
    source = open_source(data, problems=errors)
    outline = None
    if language and vision:
        outline = Bridge.outline(
            language,
            vision,
            tokens=tokens,
            template=template,
            trust_remote_code=trust_remote_code,
        )
    if outline and not resolution:
        resolution = outline.vision.resolution

    def look(index: int) -> tuple[int, int] | str:
        try:
            return source.picture(index).size
        except BadImage as error:
            return str(error)

    found = list(
        progress(
            in_threads(look, len(source)), total=len(source), desc="reading pictures", unit="image"
        )
    )
    errors += [result for result in found if isinstance(result, str)]
    sizes = [result for result in found if not isinstance(result, str)]
    captions = [text for index in range(len(source)) for text in source.texts(index) if text]
    report = DataReport(
        data=data,
        pictures=len(source),
        captions=len(captions),
        errors=errors,
        resolution=resolution,
        smaller=sum(min(size) < (resolution or 0) for size in sizes),
        shorter_sides=_extent([min(size) for size in sizes]),
        words=_extent([len(text.split()) for text in captions]),
        longest=sorted(dict.fromkeys(captions), key=len, reverse=True)[:5],
        left_out=[whole(line) for line in left_out(source)],
    )
    if resolution:
        step = outline.vision.side_step if outline else 8
        among = buckets(resolution, max(step, resolution // 8 // step * step))
        counted = Counter(nearest_bucket(size, among) for size in sizes)
        report.sizes = {"{}×{}".format(*among[i]): n for i, n in sorted(counted.items())}
    lengths: list[int] = []
    if outline:
        report.token_limit = outline.tokens
        model = outline.language
        unknown: Counter[str] = Counter()
        tokenizer = load_tokenizer(model.place, trust_remote_code=trust_remote_code)
        model.tokenizer = tokenizer
        for start in progress(range(0, len(captions), 1000), desc="reading captions", unit="k"):
            given = model.token_ids(captions[start : start + 1000])
            lengths += [len(ids) for ids in given]
            unknown.update(
                reason
                for ids in given
                if (reason := unknown_token(ids, tokenizer, model.embeddings, model.place))
            )
        errors += [f"{reason} ({count:,} captions)" for reason, count in unknown.items()]
        report.tokens = _extent(lengths)
        report.truncated = sum(length > outline.tokens for length in lengths)
    if out:
        write_text(out / "report.json", json.dumps(asdict(report), indent=2) + "\n")
        words = [len(text.split()) for text in captions]
        write_text(out / "index.html", _page(report, source, lengths or words))
    return report


def _page(report: DataReport, source: Source, lengths: Sequence[int]) -> str:
    step = max(1, len(source) // SHOWN)
    pictures = []
    for index in range(0, len(source), step)[:SHOWN]:
        try:
            picture = source.picture(index, THUMBNAIL)
        except BadImage:
            continue
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        pictures.append((data_url(picture), source.texts(index)[0], whole(source.where(index))))
    return render(
        "lavi_bridge.plan",
        "data_check.html",
        report=report,
        pictures=pictures,
        bars=_bars(lengths, report.token_limit),
        version=__version__,
        unit="tokens" if report.token_limit else "words",
        sizes=_scaled(list(report.sizes.items())),
    )


def _bars(lengths: Sequence[int], limit: int | None) -> list[tuple[str, int, float, bool]]:
    """A histogram: label, count, width in per cent, whether it lies beyond the limit."""
    if not lengths:
        return []
    width = max(1, -(-max(lengths) // BARS))
    counted = Counter(length // width for length in lengths)
    rows = [(f"{i * width}–{i * width + width - 1}", counted[i]) for i in range(max(counted) + 1)]
    return [(*row, limit is not None and i * width > limit) for i, row in enumerate(_scaled(rows))]


def _scaled(rows: Sequence[tuple[str, int]]) -> list[tuple[str, int, float]]:
    most = max((count for _, count in rows), default=1)
    return [(label, count, 100 * count / most) for label, count in rows]


def _extent(values: Sequence[int]) -> dict[str, int]:
    if not values:
        return {}
    return {
        "least": min(values),
        "median": round(statistics.median(values)),
        "greatest": max(values),
    }


def _range(spread: dict[str, int]) -> str:
    if not spread:
        return "–"
    return f"{spread['least']:,} to {spread['greatest']:,} (median {spread['median']:,})"
