"""What the alert rules and the dashboard ask Prometheus for."""

import json
import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings

RULES = settings.BASE_DIR / "ops" / "alerts.yml"
DASHBOARD = settings.BASE_DIR / "ops" / "grafana-dashboard.json"

WORDS = {
    "absent", "and", "by", "histogram_quantile", "increase", "max", "offset", "on", "rate", "sum", "time",
}  # fmt: skip


def named(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    bare = re.sub(r'(by|on) \([^)]*\)|\{[^}]*\}|\[[^]]*\]|"[^"]*"', "", expression)
    return set(re.findall(r"\b[a-z]\w+", bare)) - WORDS


def rules() -> list[str]:
    """Return the expressions of the alert rules."""
    return re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)


def alerts() -> list[str]:
    """Return the names of the alert rules."""
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels of the dashboard, without the titles between them."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def asked() -> list[str]:
    """Return the expressions of the dashboard, as Prometheus gets them from it."""
    return [
        target["expr"].replace("$__rate_interval", "5m")
        for panel in panels()
        for target in panel["targets"]
    ]
