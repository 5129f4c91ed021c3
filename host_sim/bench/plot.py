"""Line plots as SVG, readable in light and in dark."""

from __future__ import annotations

from html import escape

Line = list[tuple[float, float]]
WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 50
_COLOURS = ("#2f7ed8", "#d8572f", "#3a9d5d", "#8a5cc0")


def _ticks(most: float) -> list[float]:
    """About five round numbers from 0 to most."""
    step = 1.0
    while most / step > 5:
        step *= 2.5 if str(step)[0] == "2" else 2
    while most / step < 2:
        step /= 2
    return [step * n for n in range(int(most / step) + 1)]


def svg(title: str, x_label: str, y_label: str, lines: dict[str, Line]) -> str:
    """A plot of named lines; both axes begin at 0."""
    points = [point for line in lines.values() for point in line]
    x_most = max(x for x, _ in points) or 1
    y_most = max(y for _, y in points) * 1.05 or 1

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + x / x_most * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - y / y_most * (HEIGHT - _TOP - _BOTTOM),
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#777">',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for y in _ticks(y_most):
        left, at = place(0, y)
        out.append(
            f'<path d="M{left:.0f} {at:.1f}H{WIDTH - _RIGHT}" stroke="#777" opacity=".25"/>'
            f'<text x="{left - 6:.0f}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in _ticks(x_most):
        at, base = place(x, 0)
        out.append(f'<text x="{at:.1f}" y="{base + 16:.0f}" text-anchor="middle">{x:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    out.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text transform="translate(16 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    for n, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[n % len(_COLOURS)]
        path = "L".join("{:.1f} {:.1f}".format(*place(*point)) for point in line)
        out.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{WIDTH - _RIGHT}" y="{20 + 15 * n}" text-anchor="end" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return "\n".join([*out, "</svg>", ""])
