"""A picture of a table of transitions, as SVG: the states in a row, what leads on above them, what leads back below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["draw"]

_WIDTH, _HEIGHT = 120, 40
_STEP = 280
_RISE = 60
_MARGIN = 20
_ARROW = (
    '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L10 5 L0 10 z" fill="currentColor"/></marker>'
)


def draw(transitions: Mapping[tuple[str, str], str], title: str) -> str:
    """Return the picture; states come in the order in which the table has them."""
    states = list(dict.fromkeys(state for (start, _), end in transitions.items() for state in (start, end)))
    labels: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in transitions.items():
        labels.setdefault((state, target), []).append(event)
    farthest = max(abs(states.index(state) - states.index(target)) for state, target in labels)
    middle = _MARGIN + farthest * _RISE + _HEIGHT / 2
    pieces = [_state(name, _center(place), middle) for place, name in enumerate(states)]
    for (state, target), events in labels.items():
        pieces.append(_arrow(states.index(state), states.index(target), middle, events))
    width, height = _center(len(states) - 1) + _WIDTH / 2 + _MARGIN, 2 * middle
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
    style = 'style="max-width: 100%; height: auto" font-family="monospace" font-size="14" fill="currentColor"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} {style}>'
        f"<title>{escape(title)}</title><defs>{_ARROW}</defs>{''.join(pieces)}</svg>"
    )


def _center(place: int) -> float:
    return _MARGIN + _WIDTH / 2 + place * _STEP


def _state(name: str, x: float, y: float) -> str:
    box = f'x="{x - _WIDTH / 2:g}" y="{y - _HEIGHT / 2:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8"'
    return f'<rect {box} fill="none" stroke="currentColor"/>{_text(name, x, y + 5)}'


def _arrow(start: int, end: int, middle: float, events: Sequence[str]) -> str:
    """Return an arc from one state to another or, as a loop above it, to itself."""
    side = -1 if start <= end else 1
    edge = middle + side * _HEIGHT / 2
    distance = abs(start - end)
    if not distance:
        x, top = _center(start), edge - _RISE
        path = f"M{x - 12:g} {edge:g} C{x - 45:g} {top:g} {x + 45:g} {top:g} {x + 12:g} {edge:g}"
        return _line(path) + _text(", ".join(events), x, edge - 0.75 * _RISE - 6)
    inset = max(105 - 75 * distance, -45)  # long ones begin outside, and so pass around the texts of short ones
    begin, finish = (_center(place) - side * sign * inset for place, sign in ((start, 1), (end, -1)))
    peak = edge + side * (2.5 * distance - 1.75) * _RISE
    path = f"M{begin:g} {edge:g} Q{(begin + finish) / 2:g} {peak:g} {finish:g} {edge:g}"
    label = (edge + peak) / 2 + (-6 if side < 0 else 17)
    return _line(path) + _text(", ".join(events), (begin + finish) / 2, label)


def _line(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="currentColor" marker-end="url(#head)"/>'


def _text(text: str, x: float, y: float) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle">{escape(text)}</text>'
