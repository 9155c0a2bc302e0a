"""The map in CONTRIBUTING.md: one line per module, the first line of its docstring.

python -m tests.unit.repository.module_map        writes it anew
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BEGIN, END = "<!-- map: begin (python -m tests.unit.repository.module_map writes it) -->", "<!-- map: end -->"
FOLDERS = (
    "src/upon", "src/upon/api", "src/upon/kafka", "src/upon/store", "triggers", "instrument_adapters", "streams",
    "dispatcher", "endpoint", "service", "src/upon/sdk", "src/upon/embedded", "src/upon/cli", "benchmarks",
)  # fmt: skip


def render() -> str:
    """Return the map as it should stand."""
    return "\n".join([BEGIN, *_lines(), END])


def _lines() -> Iterator[str]:
    for folder in FOLDERS:
        yield f"\n**{folder}/** {_first_line(ROOT / folder / '__init__.py')}\n"
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.stem != "__init__":
                yield f"- `{path.stem}` {_first_line(path)}"


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def standing() -> str:
    """Return the map as it stands."""
    text = CONTRIBUTING.read_text()
    return text[text.index(BEGIN) : text.index(END) + len(END)]


if __name__ == "__main__":
    CONTRIBUTING.write_text(CONTRIBUTING.read_text().replace(standing(), render()))
