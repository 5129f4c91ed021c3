"""When the nodes of a fleet came back, and when they should: a histogram as an SVG file."""

from __future__ import annotations

from collections import Counter
from html import escape

_WIDTH, _HEIGHT = 860, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 64, 50
# Readable on a light page and on a dark one.
_STYLE = """\
text { font: 13px sans-serif; fill: #767676 }
.title { font-size: 15px }
.bar { fill: #2f7ebc }
.down { fill: #d9534f; opacity: .18 }
.axis { stroke: #8a8a8a; fill: none }
.grid { stroke: #8a8a8a; opacity: .25 }
.expected { stroke: #e08a00; fill: none; stroke-width: 2 }"""


def histogram(
    times: list[float],
    *,
    title: str,
    down_s: float,
    expected: list[tuple[float, float]],
    note: str,
) -> str:
    """How many came in each second since the loss.

    times: seconds since the loss; down_s: how long the broker was away; expected: points of a line
    (second, nodes per second); note: a second line below the title.
    """
    counts = Counter(int(t) for t in times)
    last = max([*counts, int(expected[-1][0])]) + 1
    most = max([*counts.values(), max(y for _, y in expected)])
    step_y = next(s for s in (1, 2, 5, 10, 20, 50, 100) if most / s <= 6)
    step_x = next(s for s in (1, 2, 5, 10, 20, 50, 100) if last / s <= 14)
    top = (int(most) // step_y + 1) * step_y

    def x(second: float) -> float:
        return _LEFT + second * (_WIDTH - _LEFT - _RIGHT) / last

    def y(count: float) -> float:
        return _HEIGHT - _BOTTOM - count * (_HEIGHT - _TOP - _BOTTOM) / top

    bottom = y(0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="22">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="42">{escape(note)}</text>',
        f'<rect class="down" x="{x(0):.1f}" y="{_TOP}" width="{x(down_s) - x(0):.1f}" '
        f'height="{bottom - _TOP:.1f}"/>',
        f'<text x="{x(0) + 6:.1f}" y="{_TOP + 16}">broker down</text>',
    ]
    for count in range(0, top + 1, step_y):
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y(count):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 8}" y="{y(count) + 4:.1f}" text-anchor="end">{count}</text>'
        )
    for second in range(0, last + 1, step_x):
        parts.append(
            f'<text x="{x(second):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{second}</text>'
        )
    for second, count in sorted(counts.items()):
        parts.append(
            f'<rect class="bar" x="{x(second) + 1:.1f}" y="{y(count):.1f}" '
            f'width="{x(1) - x(0) - 2:.1f}" height="{bottom - y(count):.1f}"/>'
        )
    line = "L".join(f"{x(second):.1f} {y(count):.1f}" for second, count in expected)
    parts += [
        f'<path class="expected" d="M{line}"/>',
        f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom:.1f}H{_WIDTH - _RIGHT}"/>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">'
        "seconds since the broker was lost</text>",
        f'<text transform="translate(16 {(_TOP + bottom) / 2:.0f}) rotate(-90)" '
        'text-anchor="middle">nodes that came back</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def expected_rate(
    nodes: int, retry_s: float, down_s: float, window_s: float, step_s: float = 0.1
) -> list[tuple[float, float]]:
    """Nodes per second that come back, if each pause is drawn from its window as told."""
    steps = int(window_s / step_s)
    down = int(down_s / step_s)
    rate = [0.0] * steps
    tries = [nodes / retry_s if n * step_s < retry_s else 0.0 for n in range(steps)]
    pause_s = retry_s
    for _ in range(6):
        for n in range(down, steps):
            rate[n] += tries[n]
        # Who tries while the broker is away draws again, from twice the window.
        pause_s *= 2
        again = [0.0] * (steps + 1)
        for n in range(min(down, steps)):
            share = tries[n] * step_s / pause_s
            again[n] += share
            again[min(steps, n + int(pause_s / step_s))] -= share
        tries = []
        level = 0.0
        for change in again[:steps]:
            level += change
            tries.append(level)
    return [(n * step_s, value) for n, value in enumerate(rate)]
