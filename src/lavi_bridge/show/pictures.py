"""Pictures for people: from tensors to PIL, and labelled grids."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lavi_bridge.errors import NotANumber

GAP = 6
"""Pixels between two pictures of a grid."""


def to_images(pixels: Tensor, names: Sequence[str] = (), *, hint: str = "") -> list[Image.Image]:
    """Pixels (batch, 3, height, width) in [-1, 1] -> PIL pictures, rounded as diffusers does.

    Raises:
        NotANumber: a value is none, or infinite; see `check_numbers`.
    """
    values = (pixels / 2 + 0.5).permute(0, 2, 3, 1).cpu()
    check_numbers(values, names, hint=hint)  # after the copy: nobody waits for a GPU twice
    array = values.clamp(0, 1).numpy()
    return [Image.fromarray(picture) for picture in (array * 255).round().astype("uint8")]


def check_numbers(values: Tensor, names: Sequence[str] = (), *, hint: str = "") -> None:
    """Refuse pictures (batch, …) with values that are not finite: black or white would be a lie.

    Args:
        names: what each shows, for the error.
        hint: what to do.

    Raises:
        NotANumber: the first of them is named.
    """
    good = values.isfinite().flatten(1).all(1).tolist()
    if not all(good):
        index = good.index(False)
        name = textwrap.shorten(names[index], 60, placeholder="…") if names else f"number {index}"
        raise NotANumber(f"the picture of '{name}' is not a number{hint and f'; {hint}'}")


def grid(
    rows: Sequence[Sequence[Image.Image]],
    *,
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    tile: int = 128,
) -> Image.Image:
    """Lay pictures out in rows; `columns` are titles above, `labels` stand left of each row.

    Small pictures are enlarged without smoothing, so that their pixels can be seen.
    """
    font = ImageFont.load_default(13)
    heads = [textwrap.wrap(title, max(8, tile // 7)) for title in columns]
    lines = max(map(len, heads), default=0)
    top, left = _margins(lines if columns else None, labelled=bool(labels))
    gap, width = GAP, max(len(row) for row in rows)
    step = tile + gap
    size = (left + width * step + gap, top + len(rows) * step + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for x, head in enumerate(heads):
        draw.multiline_text((left + gap + x * step, 5), "\n".join(head), "black", font, spacing=3)
    for y, row in enumerate(rows):
        if labels:
            text = "\n".join(textwrap.wrap(labels[y], 26, max_lines=7, placeholder=" …"))
            draw.multiline_text((gap, top + gap + y * step), text, "black", font, spacing=3)
        for x, picture in enumerate(row):
            small = picture.width < tile
            resized = picture.resize(
                (tile, tile), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
            )
            sheet.paste(resized, (left + gap + x * step, top + gap + y * step))
    return sheet


def tiles(sheet: Image.Image, rows: int, *, tile: int) -> list[Image.Image]:
    """The pictures of a `grid` of one labelled column under a title of one line; [] for others."""
    top, left = _margins(1, labelled=True)
    step = tile + GAP
    if sheet.size != (left + step + GAP, top + rows * step + GAP):
        return []
    corners = [(left + GAP, top + GAP + row * step) for row in range(rows)]
    return [sheet.crop((x, y, x + tile, y + tile)) for x, y in corners]


def _margins(lines: int | None, *, labelled: bool) -> tuple[int, int]:
    """What a grid leaves above its pictures, for so many lines of titles, and left of them."""
    return 0 if lines is None else 8 + 16 * lines, 190 if labelled else 0
