"""Tables and pages as people see them."""

import pytest
from jinja2 import UndefinedError
from PIL import Image

from lavi_bridge.show.html import data_url, render
from lavi_bridge.show.tables import aligned, markdown

HEAD = ["entry", "score", "note"]
ROWS = [["a", "0.5", "well"], ["longer", "12", ""]]


def test_markdown_has_a_rule_that_aligns() -> None:
    assert markdown(HEAD, ROWS, "lr").splitlines() == [
        "| entry | score | note |",
        "| --- | ---: | ---: |",
        "| a | 0.5 | well |",
        "| longer | 12 |  |",
    ]
    assert markdown(HEAD, ROWS, "lrl").splitlines()[1] == "| --- | ---: | --- |"
    assert markdown(HEAD, []).splitlines() == ["| entry | score | note |", "| --- | --- | --- |"]


def test_columns_of_text_have_one_width() -> None:
    assert aligned([HEAD, *ROWS], "lrl").splitlines() == [
        "entry   score  note",
        "a         0.5  well",
        "longer     12",
    ]


def test_a_picture_is_text_of_its_format() -> None:
    picture = Image.new("RGB", (2, 2), "red")
    assert data_url(picture).startswith("data:image/png;base64,iVBOR")
    assert data_url(picture, jpeg=True).startswith("data:image/jpeg;base64,/9j/")


def test_a_page_that_lacks_a_value_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("lavi_bridge.zoo", "demo.html")
