"""The routes as a Markdown table, for `docs/rest.md`; a test holds that page to it.

python -m upon.service.rest.reference        writes it anew, in a clone
"""

from __future__ import annotations

from pathlib import Path

from upon.service.rest.routes import ROUTES

PAGE = Path("docs/rest.md")
BEGIN, END = "<!-- routes: begin (python -m upon.service.rest.reference writes it) -->", "<!-- routes: end -->"


def render() -> str:
    """Return the table, with the marks around it."""
    rows = ["| route | does | query |", "|---|---|---|"]
    for route in ROUTES:
        queries = ", ".join(f"`{query.name}`" for query in route.queries)
        rows.append(f"| `{route.method} {route.path}` | {route.summary} | {queries} |")
    return "\n".join([BEGIN, *rows, END])


def standing(page: str) -> str:
    """Return the table as it stands in a page."""
    return page[page.index(BEGIN) : page.index(END) + len(END)]


if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text.replace(standing(text), render()))
