"""docs/rest.md says what routes there are."""

from __future__ import annotations

from pathlib import Path

from upon.service.rest.reference import render, standing


def test_the_page_has_the_routes_there_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "rest.md").read_text()
    assert standing(page) == render(), "run `python -m upon.service.rest.reference`"
