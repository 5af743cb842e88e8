"""The plot of the README: what a task costs, a bar a library, as SVG by hand."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, MARGIN, TOP, PITCH, BAR = 720, 24, 92, 46, 22  # pixels
LEFT, FIGURE = 212, 84  # where the bars begin, and the room that is kept for the longest bar's figure
FONT = "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\""


class Theme(NamedTuple):
    """The colours of one of the two plots."""

    ground: str
    text: str
    quiet: str
    ours: str
    others: str


THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#59636e", "#0969da", "#818b98"),
    "dark": Theme("#0d1117", "#f0f6fc", "#9198a1", "#4493f8", "#6e7681"),
}


class Figure(NamedTuple):
    """One bar: whose it is, a word about it, and how long it is."""

    name: str
    note: str
    us: float
    is_ours: bool = False


def svg(title: str, note: str, figures: Sequence[Figure], theme: Theme) -> str:
    """Return horizontal bars from zero on a linear scale, the shortest first."""
    shown = sorted(figures, key=lambda figure: figure.us)
    height = TOP + PITCH * len(shown) + MARGIN - (PITCH - BAR) // 2
    scale = (WIDTH - MARGIN - FIGURE - LEFT) / shown[-1].us
    said = "; ".join(f"{figure.name} {figure.us:,.0f} µs" for figure in shown)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" {FONT}',
        f'  width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(f"{note}. {said}.")}</desc>',
        f'<rect width="{WIDTH}" height="{height}" fill="{theme.ground}"/>',
        _text(MARGIN, 38, title, theme.text, 'font-size="18" font-weight="600"'),
        _text(MARGIN, 62, note, theme.quiet, 'font-size="13"'),
    ]
    for place, figure in enumerate(shown):
        lines += _bar(figure, TOP + PITCH * place, max(figure.us * scale, 2), theme)
    return "\n".join([*lines, "</svg>", ""])


def _bar(figure: Figure, top: int, length: float, theme: Theme) -> list[str]:
    weight = "600" if figure.is_ours else "400"
    colour = theme.ours if figure.is_ours else theme.others
    return [
        _text(MARGIN, top + 11, figure.name, theme.text, f'font-size="14" font-weight="{weight}"'),
        _text(MARGIN, top + 27, figure.note, theme.quiet, 'font-size="12"'),
        f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        _text(LEFT + length + 8, top + 16, f"{figure.us:,.0f} µs", theme.text, f'font-size="14" font-weight="{weight}"'),
    ]


def _text(x: float, y: float, words: str, colour: str, style: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" {style}>{escape(words)}</text>'
