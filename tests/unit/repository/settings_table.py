"""The table of settings in docs/operations.md: every field of `upon.config.Settings`.

python -m tests.unit.repository.settings_table        writes it anew
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic_core import PydanticUndefined

from upon.config import PROFILE_FIELDS, Settings

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
BEGIN = "<!-- settings: begin (python -m tests.unit.repository.settings_table writes it) -->"
END = "<!-- settings: end -->"
MADE = {"home": "user data folder", "workers": "one per core"}
"""Defaults that depend on the machine."""


def render() -> str:
    """Return the table as it should stand."""
    return "\n".join([BEGIN, "| variable | default | meaning | in the profile |", "|---|---|---|---|", *_rows(), END])


def _rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = MADE.get(name) or (f"`{field.default}`" if field.default not in ("", PydanticUndefined) else "")
        meaning = (field.description or "").replace("|", r"\|")
        yield f"| `UPON_{name.upper()}` | {default} | {meaning} | {'yes' if name in PROFILE_FIELDS else ''} |"


def standing() -> str:
    """Return the table as it stands."""
    text = PAGE.read_text()
    return text[text.index(BEGIN) : text.index(END) + len(END)]


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().replace(standing(), render()))
