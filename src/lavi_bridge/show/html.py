"""Pages that stand alone: one file, with pictures and curves inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL.Image import Image


def render(package: str, template: str, **values: Any) -> str:
    """Fill a template that lies in a package; what is not Markup is escaped.

    Templates may import from or include others of the package, and those that lie here.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place, "") for place in (package, __package__)]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template(template).render(values)


def data_url(picture: Image, *, jpeg: bool = False) -> str:
    """A picture as text inside a page: as PNG, or as JPEG where that is small enough to see."""
    file = io.BytesIO()
    if jpeg:
        picture.save(file, "JPEG", quality=85)
    else:
        picture.save(file, "PNG")
    kind = "jpeg" if jpeg else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Points in pixels, as an SVG polyline has them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
