"""Pictures of a tour's seats, as SVG that the server draws: a bar of now, and a plot of its history.

Both say in words what they show, for whoever does not see them. All text stands beside the drawing and not in
it, so that it keeps its size on a narrow screen.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import accumulate, pairwise
from math import ceil, log10
from typing import NamedTuple

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime

from catalog.bookings import Seats

SIZE = 1000  # units of a drawing, in both directions
TICKS = 4  # steps between the lines of a plot, at the most
DAY = 86_400  # seconds

Height = Callable[[Seats], int]  # of a line in a plot, in seats


class Part(NamedTuple):
    """Seats of one kind, as the bar and its legend show them."""

    kind: str  # a class of the style sheet
    seats: int
    label: str


class Moment(NamedTuple):
    """The numbers of a tour from a time on."""

    since: datetime
    seats: Seats


class Plot(NamedTuple):
    """What a template needs to draw the history of a tour's seats."""

    areas: list[tuple[str, str]]  # a class of the style sheet, and a path
    capacity: str  # a path
    ticks: list[tuple[int, str]]  # seats, and how high that is in percent
    times: list[str]  # at the left, in the middle, at the right
    words: str


def parts(seats: Seats) -> list[Part]:
    """Return what a tour's seats are made up of, as far as there is anything of it."""
    outside = max(0, seats.unledgered)
    found = [
        Part("reserved", seats.reserved, "reserved"),
        Part("outside", outside, "sold outside the ledger"),
        Part("free", seats.available, "free"),
        Part("overbooked", seats.overbooked, "sold beyond the capacity"),
    ]
    return [part for part in found if part.seats or part.kind == "free"]


def bar(seats: Seats) -> SafeString:
    """Return a bar of a tour's seats; what is sold beyond the capacity is marked at its end."""
    whole = max(seats.capacity, seats.sold, 1)
    drawn, at = [], 0
    for part in parts(seats):
        if part.kind == "overbooked":
            at = seats.capacity
        drawn.append((part.kind, _units(at, whole), _units(part.seats, whole)))
        at += part.seats
    return format_html(
        '<svg class="seat-bar" viewBox="0 0 {} 10" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        SIZE,
        words(seats),
        format_html_join("", '<rect class="seats-{}" x="{}" width="{}" height="10"/>', drawn),
    )


def words(seats: Seats) -> str:
    """Return in words what the bar shows."""
    said = ", ".join(f"{part.seats} {part.label}" for part in parts(seats))
    return f"{seats.capacity} seats: {said}"


def plot(history: Sequence[Moment], until: datetime) -> Plot:
    """Return the plot of a tour's seats: each number holds from its time until the next one's."""
    # A time before the one before it is of a clock that was set back.
    times = list(accumulate([*(each.since for each in history), until], max))
    first, until = times[0], times[-1]
    top, step = _scale(max(max(each.seats.capacity, each.seats.sold) for each in history))
    span = (until - first).total_seconds() or 1.0
    xs = [round(SIZE * (time - first).total_seconds() / span) for time in times]

    def line(height: Height) -> list[tuple[int, int]]:
        ys = [SIZE - _units(height(each.seats), top) for each in history]
        return [point for at, y in zip(pairwise(xs), ys, strict=True) for point in _step(at, y)]

    def area(low: Height, high: Height) -> str:
        return f"M{_path(line(high))}L{_path(reversed(line(low)))}Z"

    return Plot(
        areas=[
            ("reserved", area(_none, lambda seats: seats.reserved)),
            ("outside", area(lambda seats: seats.reserved, lambda seats: seats.sold)),
            (
                "overbooked",
                area(lambda seats: seats.sold - seats.overbooked, lambda seats: seats.sold),
            ),
        ],
        capacity=f"M{_path(line(lambda seats: seats.capacity))}",
        ticks=[(tick, f"{100 * tick / top:.2f}") for tick in range(0, top + 1, step)],
        times=_labels(first, until),
        words=f"Seats from {shown(first)} to {shown(until)}. At the end: {words(history[-1].seats)}.",
    )


def shown(time: datetime) -> str:
    """Return a time as the admin's pages show it."""
    return f"{localtime(time):%Y-%m-%d %H:%M:%S %Z}"


def _none(_: Seats) -> int:
    return 0


def _units(seats: int, whole: int) -> int:
    return round(SIZE * seats / whole)


def _step(at: tuple[int, int], y: int) -> list[tuple[int, int]]:
    left, right = at
    return [(left, y), (right, y)]


def _path(points: Iterable[tuple[int, int]]) -> str:
    return "L".join(f"{x} {y}" for x, y in points)


def _scale(most: int) -> tuple[int, int]:
    """Return the top of a scale that has room for a number, and the step between its lines."""
    rough = max(1.0, most / TICKS)
    unit = int(10 ** int(log10(rough)))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return step * max(1, ceil(most / step)), step


def _labels(first: datetime, until: datetime) -> list[str]:
    days = (until - first).total_seconds() / DAY
    pattern = "%Y-%m-%d" if days > 3 * TICKS else "%m-%d %H:%M" if days > 1 else "%H:%M:%S"
    return [f"{localtime(first + part * (until - first)):{pattern}}" for part in (0.0, 0.5, 1.0)]
