"""The alert rules: promtool takes them, each fires when it should, and none names what there is not."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from prometheus_client import REGISTRY

from booking_platform.operations import auditing
from tests.promtool import promtool

RULES = settings.BASE_DIR / "ops" / "alerts.yml"
CASES = settings.BASE_DIR / "ops" / "alerts_test.yml"
OF_PROMQL = {"absent", "by", "increase", "max", "rate", "sum", "time"}


@pytest.fixture
def tool() -> str:
    found = promtool()
    if found is None:
        problem = "needs promtool, which could not be had"
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def named(expression: str) -> set[str]:
    """Return the metrics that an expression names."""
    bare = re.sub(r'by \([^)]*\)|\{[^}]*\}|\[[^]]*\]|"[^"]*"', "", expression)
    return set(re.findall(r"\b[a-z]\w+", bare)) - OF_PROMQL


@pytest.mark.once
class TestPromtool:
    def test_it_takes_the_rules(self, tool: str) -> None:
        assert "SUCCESS" in run(tool, "check", "rules", RULES)

    def test_each_fires_when_it_should_and_only_then(self, tool: str) -> None:
        assert run(tool, "test", "rules", CASES).startswith("0 ")

    def test_a_rule_that_is_broken_is_noticed(self, tool: str, tmp_path: Path) -> None:
        broken = RULES.read_text().replace("max(attempts_overdue) > 0", "max(attempts_overdue) > 9")
        (tmp_path / RULES.name).write_text(broken)
        (tmp_path / CASES.name).write_text(CASES.read_text())
        assert run(tool, "test", "rules", tmp_path / CASES.name).startswith("1 ")


@pytest.mark.django_db(transaction=True)
def test_each_rule_names_metrics_that_there_are(client: Client) -> None:
    auditing.run()
    page = client.get("/metrics").content.decode()
    there = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)) | {
        sample.name for metric in REGISTRY.collect() for sample in metric.samples
    }
    # A counter with labels has no sample before it has counted something.
    there |= {f"{metric.name}_total" for metric in REGISTRY.collect() if metric.type == "counter"}
    expressions = re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)
    assert len(expressions) == len(alerts())
    for expression in expressions:
        assert named(expression)
        assert named(expression) <= there, expression


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def test_each_rule_has_a_case_in_which_it_fires() -> None:
    firing = set(re.findall(r'alertname="(\w+)"\}', CASES.read_text()))
    assert firing == set(alerts())


def test_what_an_expression_names_is_read_from_it() -> None:
    text = 'sum by (queue) (rate(a_total{x="b"}[5m])) / max(c_seconds) > 0.5'
    assert named(text) == {"a_total", "c_seconds"}
