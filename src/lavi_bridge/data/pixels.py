"""What a viewer shows of a picture: turned as EXIF says, over white, with 8 bits a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ExifTags, Image

READING = 2
"""Goes up by one whenever the same file gives other pixels or another size than before; whatever
keeps them (cached latents, measured sizes) carries it, and is refused or made anew."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation; `ImageOps.exif_transpose` also writes EXIF back, which fails on odd tags."""
RAW_PROFILE, XMP = "Raw profile type exif", "XML:com.adobe.xmp"
NOTES = {"exif", "xmp", RAW_PROFILE, XMP}
"""Where Pillow keeps what may say the orientation."""
ORIGINAL = "size before decoding"
"""In a picture's `info`, where it may have been decoded smaller than its file has it."""
GREYS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies PNG's greys of 2 and 4 bits by, but not the one that is transparent."""


def as_shown(picture: Image.Image) -> Image.Image:
    """An open picture of any mode -> RGB as viewers show it.

    Raises:
        ValueError: its values have no range that is known.
    """
    shown = _rgb(picture)
    turn = _turn(picture)  # after loading, where TIFF has been turned by Pillow
    return shown if turn is None else shown.transpose(turn)


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of what `as_shown` gives, from the header alone."""
    if picture.format == "PNG" and _notes_follow(picture):
        picture.load()
    turn = None if picture.format == "TIFF" else _turn(picture)  # Pillow gives it turned
    width, height = picture.size
    sideways = turn is not None and turn not in (TURNS[2], TURNS[3], TURNS[4])
    return (height, width) if sideways else (width, height)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    if NOTES.isdisjoint(picture.info):
        return None
    try:
        # not PNG's own method, which decodes all pixels in search of EXIF
        return TURNS.get(Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises whatever its parser stumbles over; the pixels are whole
        return None


def _notes_follow(picture: Any) -> bool:
    """Whether a PNG says its orientation behind the pixels, where Pillow has not read yet."""
    file, place = picture.fp, picture.fp.tell()
    known = (RAW_PROFILE.encode(), XMP.encode())
    file.seek(8)
    pixels = False
    while len(head := file.read(8)) == 8 and (kind := head[4:]) != b"IEND":
        pixels |= kind == b"IDAT"
        length = int.from_bytes(head[:4], "big")
        texts = pixels and kind in (b"iTXt", b"zTXt", b"tEXt")
        if (pixels and kind == b"eXIf") or (texts and file.read(min(length, 32)).startswith(known)):
            break
        file.seek(length + 4 - (min(length, 32) if texts else 0), 1)
    else:
        kind = b"IEND"
    file.seek(place)
    return kind != b"IEND"


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("its values are fractions of no known range; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        return _high_bytes(picture).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    _scale_key(picture)
    if picture.mode == "La":
        picture = picture.convert("LA")
    ground = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _high_bytes(picture: Image.Image) -> Image.Image:
    """Greys of 16 bits, which may be kept in 32 -> 8 bits; the transparent one becomes white."""
    values = np.asarray(picture)
    least, most = int(values.min()), int(values.max())
    if least < 0 or most > 65535:
        raise ValueError(f"its values go from {least} to {most}; save it with 8 or 16 bits")
    shown = (values >> 8).astype(np.uint8)
    if isinstance(key := picture.info.get("transparency"), int):
        shown[values == key] = 255
    return Image.fromarray(shown)


def _scale_key(picture: Image.Image) -> None:
    """Bring the transparent colour to the 8 bits that Pillow brings the others to."""
    key = picture.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        picture.info["transparency"] = tuple(value >> 8 for value in key)
    elif picture.mode == "L" and isinstance(key, int) and (tiles := getattr(picture, "tile", None)):
        picture.info["transparency"] = min(255, key * GREYS.get(tiles[0][3], 1))
