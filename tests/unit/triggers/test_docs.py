"""docs/sources.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from upon.errors import ConfigError
from upon.triggers.options import options_table
from upon.triggers.publisher import MAX_BYTES, MAX_EVENTS
from upon.triggers.sources_file import read_sources
from upon.triggers.supervised import FIRST_PAUSE, LONGEST_PAUSE

DOC = (Path(__file__).parents[3] / "docs" / "sources.md").read_text()
YAML = re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)


@pytest.mark.parametrize("text", YAML)
def test_every_sources_file_in_it_is_right(text: str) -> None:
    assert read_sources(text, "docs/sources.md", Path("/"))


@pytest.mark.parametrize("kind", ["filesystem", "globus", "epics"])
def test_the_options_are_those_of_the_code(kind: str) -> None:
    assert options_table(kind) in DOC, f"run `python -m upon.triggers.options {kind}` and put the table there"
    assert f"kind: {kind}\n" in DOC


def test_the_error_it_shows_is_the_one_that_comes() -> None:
    with pytest.raises(ConfigError) as caught:
        read_sources(YAML[0].replace("settle: 2s", "settle: soon"), "sources.yaml", Path("/"))
    assert str(caught.value) in DOC


def test_the_numbers_it_names() -> None:
    assert f"{MAX_EVENTS:,} of them (or {MAX_BYTES >> 20} MB)" in DOC
    assert f"pauses from {FIRST_PAUSE} s to {LONGEST_PAUSE:.0f} s" in DOC
