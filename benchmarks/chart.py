"""A bar chart as SVG, on a logarithmic scale. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

ROW, LEFT, WIDTH, RIGHT, TOP = 24, 240, 380, 80, 34


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Return a chart of positive values, one bar each, in their order; ticks at powers of ten."""
    low = 10.0 ** math.floor(math.log10(min(value for _, value in values)))
    high = 10.0 ** math.ceil(math.log10(max(value for _, value in values)))
    high = max(high, low * 10)
    height = TOP + ROW * len(values) + 24

    def across(value: float) -> float:
        return WIDTH * math.log10(value / low) / math.log10(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    tick = low
    while tick <= high:
        at = LEFT + across(tick)
        parts += [
            f'<line x1="{at:.0f}" x2="{at:.0f}" y1="{TOP}" y2="{height - 20}" stroke="#ccc"/>',
            f'<text x="{at:.0f}" y="{height - 6}" text-anchor="middle" fill="#666">{tick:,.0f}</text>',
        ]
        tick *= 10
    for number, (name, value) in enumerate(values):
        top = TOP + ROW * number
        fill = "#c2410c" if name.startswith("Upon") else "#64748b"
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{top + 3}" width="{across(value):.0f}" height="{ROW - 6}" fill="{fill}"/>',
            f'<text x="{LEFT + across(value) + 6:.0f}" y="{top + 16}">{value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
