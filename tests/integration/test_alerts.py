"""The alert rules and the dashboard: promtool takes them, and each rule fires when it should.

That what they name is there, ``tests/acceptance/test_metrics_pages.py`` looks up in the pages of real processes.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from django.conf import settings

from tests.promql import DASHBOARD, RULES, alerts, asked, named, panels, rules
from tests.promtool import promtool

CASES = settings.BASE_DIR / "ops" / "alerts_test.yml"


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


@pytest.mark.once
class TestPromtool:
    def test_it_takes_the_rules(self, tool: str) -> None:
        assert "SUCCESS" in run(tool, "check", "rules", RULES)

    def test_each_fires_when_it_should_and_only_then(self, tool: str) -> None:
        assert run(tool, "test", "rules", CASES).startswith("0 ")

    def test_a_rule_that_is_broken_is_noticed(self, tool: str, tmp_path: Path) -> None:
        wanted = "max by (queue) (leases_overdue) > 0"
        assert wanted in RULES.read_text()
        broken = RULES.read_text().replace(wanted, wanted.replace("0", "9"))
        (tmp_path / RULES.name).write_text(broken)
        (tmp_path / CASES.name).write_text(CASES.read_text())
        assert run(tool, "test", "rules", tmp_path / CASES.name).startswith("1 ")

    def test_it_takes_what_the_dashboard_asks_for(self, tool: str, tmp_path: Path) -> None:
        recorded = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(asked())]
        file = tmp_path / "dashboard.yml"
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
        assert f"SUCCESS: {len(recorded)} rules found" in run(tool, "check", "rules", file)


class TestRules:
    def test_each_has_a_case_in_which_it_fires(self) -> None:
        firing = set(re.findall(r'alertname="(\w+)"\}', CASES.read_text()))
        assert firing == set(alerts())

    def test_each_says_how_urgent_it_is_and_what_to_do(self) -> None:
        text = RULES.read_text()
        count = len(alerts())
        assert len(rules()) == count
        assert len(re.findall(r"severity: (page|ticket)\}", text)) == count
        assert len(re.findall(r'^ +description: "?\w.{30,}\."?$', text, re.MULTILINE)) == count

    def test_what_an_expression_names_is_read_from_it(self) -> None:
        text = 'sum by (queue) (rate(a_total{x="b"}[5m])) / max(c_seconds offset 5m) > 0.5'
        assert named(text) == {"a_total", "c_seconds"}


class TestTheDashboard:
    def test_grafana_asks_for_the_source_when_it_is_imported(self) -> None:
        dashboard = json.loads(DASHBOARD.read_text())
        [variable] = dashboard["templating"]["list"]
        assert (variable["name"], variable["type"]) == ("datasource", "datasource")
        sources = {panel["datasource"]["uid"] for panel in panels()}
        sources |= {each["datasource"]["uid"] for panel in panels() for each in panel["targets"]}
        assert sources == {"${datasource}"}

    def test_no_panel_covers_another(self) -> None:
        dashboard = json.loads(DASHBOARD.read_text())
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert not cells & taken, panel["title"]
            taken |= cells
