"""The last hour as a chart: slots in use as a line (the average) in an area (the most), clients that wait as another line.

All is on one scale. It is drawn here, as SVG without a style of its own, so that it is there without a script.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from distbal.activity import Activity, Bin
from distbal.web.words import number

#: the coordinates' range; the page stretches it to its width
WIDTH, HEIGHT = 720, 100


def chart(activity: Activity) -> str:
    """The chart, its scale and what it shows in words."""
    bins = activity.hour()
    most_active = max((one.most_active for one in bins), default=0)
    most_waiting = max((one.most_waiting for one in bins), default=0)
    top = nice(max(most_active, most_waiting, 1))
    words = f"at most {number(most_active)} slots in use at once, and {number(most_waiting)} clients waiting"
    newest = bins[-1].number if bins else 0
    areas, averages = [], []
    for run in _runs(bins):
        active = _points(run, newest, activity.bins, top, lambda one: one.active)
        peaks = _points(run, newest, activity.bins, top, lambda one: float(one.most_active))
        first, last = active[0][0], active[-1][0]
        areas.append(f"M{first:g} {HEIGHT}L{_path(peaks)}L{last:g} {HEIGHT}Z")
        averages.append(f"M{_path(active)}")
    waits = [
        f"M{_path(_points(run, newest, activity.bins, top, lambda one: float(one.most_waiting)))}"
        for run in _runs(_near_waiting(bins))
    ]
    grid = "".join(f'<path class="grid" d="M0 {y}H{WIDTH}"/>' for y in (0, HEIGHT // 2, HEIGHT))
    drawn = f'<path class="area" d="{"".join(areas)}"/>' if areas else ""
    drawn += f'<path class="active" d="{"".join(averages)}"/>' if averages else ""
    drawn += f'<path class="waiting" d="{"".join(waits)}"/>' if waits else ""
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="The last hour: {words}">{grid}{drawn}</svg>'
        f'<div class="y" aria-hidden="true"><span>{number(top)}</span><span>{number(top / 2)}</span><span>0</span></div>'
        '<div class="x" aria-hidden="true"><span>1 h ago</span><span>45 min</span><span>30 min</span><span>15 min</span>'
        "<span>now</span></div>"
        '<figcaption><span class="key area">slots in use</span> <span class="key waiting">waiting</span> '
        f"<span>{words}</span></figcaption></figure>"
    )


def nice(most: float) -> int:
    """The least of 2, 4, 10, 20, 40, 100 ... that is not below it: the half of it is whole too."""
    power = 10 ** math.floor(math.log10(max(1.0, most)))
    return int(next(step * power for step in (2, 4, 10, 20) if step * power >= most))


def _near_waiting(bins: list[Bin]) -> list[Bin]:
    """Those in which somebody waited, and one on either side, from which the line rises and to which it falls."""
    numbers = {one.number + step for one in bins if one.most_waiting for step in (-1, 0, 1)}
    return [one for one in bins if one.number in numbers]


def _runs(bins: list[Bin]) -> list[list[Bin]]:
    """Bins without a gap between them."""
    runs: list[list[Bin]] = []
    for one in bins:
        if runs and runs[-1][-1].number == one.number - 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _points(run: list[Bin], newest: int, bins: int, top: int, value: Callable[[Bin], float]) -> list[tuple[float, float]]:
    """Where they lie; of one bin alone both its ends."""
    step = WIDTH / max(1, bins - 1)
    points = [(WIDTH - (newest - one.number) * step, HEIGHT - value(one) / top * HEIGHT) for one in run]
    return points if len(points) > 1 else [(points[0][0] - step, points[0][1]), points[0]]


def _path(points: list[tuple[float, float]]) -> str:
    return "L".join(f"{x:.4g} {y:.4g}" for x, y in points)
