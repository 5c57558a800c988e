"""The start page of the admin: the dashboard, with its charts as the theme draws them."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.http import HttpRequest
from django.utils.timezone import localtime

from booking_platform.operations import dashboard, tallies
from booking_platform.operations.dashboard import HOURS, Level, Panel, Shown

COLOURS: dict[Level, str] = {"good": "#2563eb", "attention": "#d97706", "bad": "#dc2626"}
OTHERS = ("#64748b", "#0d9488", "#9333ea", "#84cc16")  # for outcomes of no level, in turn

# Chart.js: bars of integers that stand on each other, with a legend.
OPTIONS = json.dumps(
    {
        "animation": False,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {"legend": {"position": "bottom", "labels": {"boxWidth": 12}}},
        "scales": {
            "x": {"stacked": True, "grid": {"display": False}, "ticks": {"maxRotation": 0}},
            "y": {
                "stacked": True,
                "beginAtZero": True,
                "grid": {},
                "ticks": {"precision": 0, "maxTicksLimit": 6},
            },
        },
    }
)


class Cell(NamedTuple):
    """A figure of the table that says the same as a chart."""

    value: int
    url: str


class Drawn(NamedTuple):
    """A part with its chart."""

    title: str
    panel: Panel
    problem: str
    chart: str  # as JSON for Chart.js; empty: it has none
    urls: str  # as JSON: of the lists behind the bars
    by_hour: Sequence[tuple[str, Sequence[Cell]]]


def show(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return the context of the start page, with what the person may see."""
    shown = dashboard.look(request.user)
    begin = tallies.hour_of(shown.at) - tallies.HOUR * (HOURS - 1)
    hours = [begin + tallies.HOUR * number for number in range(HOURS)]
    parts = [_drawn(part, hours) for part in shown.shown]
    return context | {"dashboard": shown, "parts": parts, "options": OPTIONS}


def _drawn(part: Shown, hours: Sequence[datetime]) -> Drawn:
    panel = part.panel
    names = [f"{localtime(hour):%H:%M}" for hour in hours]
    chart = urls = ""
    if panel.series:
        chart = json.dumps({"labels": names, "datasets": list(_datasets(panel))})
        urls = json.dumps([list(series.urls) for series in panel.series])
    by_hour = [
        (name, [Cell(series.values[number], series.urls[number]) for series in panel.series])
        for number, name in enumerate(names)
        if panel.series
    ]
    return Drawn(part.title, panel, part.problem, chart, urls, by_hour)


def _datasets(panel: Panel) -> Iterator[dict[str, Any]]:
    others = 0
    for series in panel.series:
        colour = COLOURS.get(series.level)
        if colour is None:
            colour, others = OTHERS[others % len(OTHERS)], others + 1
        yield {
            "label": series.name,
            "data": list(series.values),
            "backgroundColor": colour,
            "maxBarThickness": 24,
        }
