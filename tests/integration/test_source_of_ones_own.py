"""The source that docs/sources.md shows, installed as a package of its own: it runs, and a kill loses nothing."""

from __future__ import annotations

import re
from pathlib import Path

from tests.reading import reading
from tests.source_process import sources_running
from upon.topics import Topics

DOC = (Path(__file__).parents[2] / "docs" / "sources.md").read_text()


def install(folder: Path) -> None:
    """Put the documented class there, with its entry point, as pip would."""
    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    (entry,) = re.findall(r'```toml\n\[project.entry-points."upon.sources"\]\nbalance = "(.*?)"', DOC)
    module, _, _ = entry.partition(":")
    place = folder.joinpath(*module.split(".")).with_suffix(".py")
    place.parent.mkdir(parents=True)
    place.write_text(code)
    about = folder / "my_lab-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[upon.sources]\nbalance = {entry}\n")


def test_the_documented_source(kafka: str, topics: Topics, tmp_path: Path) -> None:
    install(tmp_path / "packages")
    weighings = tmp_path / "weighings"
    weighings.write_text("1.5\nrubbish\n2.5\n3.")
    text = "version: 1\nsources:\n  - {name: b, kind: balance, path: ../weighings, every: 50ms}\n"
    with (
        sources_running(tmp_path / "home", kafka, topics, text, PYTHONPATH=str(tmp_path / "packages")) as source,
        reading(kafka, topics) as reader,
    ):
        reader.until(lambda events: len(events) == 2, "the whole lines")
        assert source.logged("refuse")[0]["line"] == "rubbish\n"
        source.kill()
        with weighings.open("a") as file:
            file.write("5\n4.5\n")
        source.start()
        reader.until(lambda events: 4.5 in [e.data["grams"] for e in events], "the lines from meanwhile")
        grams = {e.id: e.data["grams"] for e in reader.events}
        assert list(grams.values()) == [1.5, 2.5, 3.5, 4.5]
        weighings.rename(tmp_path / "gone")
        source.stop()
