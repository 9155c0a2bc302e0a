"""A stranger's source, installed as a package of its own, fails: it is tried again, and the others go on."""

from __future__ import annotations

from pathlib import Path

from tests.reading import reading
from tests.source_process import sources_running
from tests.systems import wait_for
from upon.topics import Topics

MODULE = """
import pathlib
from pydantic import Field
from upon.events import Event
from upon.triggers.source import Source, SourceConfig, event_id


class BalanceConfig(SourceConfig):
    well: str = Field(description="a file whose presence means that the balance works")


class BalanceSource(Source):
    Config = BalanceConfig

    def run(self):
        if not pathlib.Path(self.config.well).exists():
            raise ValueError("the balance does not answer")
        self.context.publish(Event(type="balance.ready", source="/balance", id=event_id("balance", "1"), subject="b"))
        self.context.ready()
        self.context.stopping.wait()
"""


def install(folder: Path) -> None:
    """Put a package there as pip would."""
    (folder / "balance_source.py").write_text(MODULE)
    about = folder / "balance_source-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: balance-source\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[upon.sources]\nbalance = balance_source:BalanceSource\n")


def test_a_failing_source_is_tried_again_while_others_run(kafka: str, topics: Topics, tmp_path: Path) -> None:
    packages, folder, well = tmp_path / "packages", tmp_path / "in", tmp_path / "well"
    packages.mkdir()
    folder.mkdir()
    install(packages)
    text = (
        "version: 1\nsources:\n"
        f"  - {{name: balance, kind: balance, well: {well}}}\n"
        "  - {name: gone, kind: filesystem, path: ../nowhere}\n"
        "  - {name: in, kind: filesystem, path: ../in}\n"
    )
    with (
        sources_running(tmp_path / "home", kafka, topics, text, PYTHONPATH=str(packages)) as source,
        reading(kafka, topics) as reader,
    ):
        assert source.info["sources"] == ["balance", "gone", "in"]
        (folder / "a").write_text("a")
        reader.until(lambda _: reader.subjects() == [str(folder / "a")], "the file")
        failures = {line["source"]: line for line in source.logged("fail")}
        assert "the balance does not answer" in str(failures["balance"])
        assert "no such folder; create it" in failures["gone"]["event"]
        well.write_text("")
        (tmp_path / "nowhere").mkdir()
        (tmp_path / "nowhere" / "b").write_text("b")
        reader.until(lambda events: len(events) == 3, "the balance and the folder", timeout=90)
        assert {e.type for e in reader.events} == {"upon.file.ready", "balance.ready"}
        wait_for(lambda: len(source.logged("recover")) == 2, "that both recovered")
        assert len(source.logged("fail")) == 2, "one line for each failure, not for each attempt"
        source.stop()
