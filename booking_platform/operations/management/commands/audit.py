"""Look for what breaks a promise of the platform; print what is off, and how to mend it.

Status 0: nothing is. Status 1: something is. Status 2: nothing was found, but not all could be looked at.
It may run at any time, beside the workers. What waits for a person (dead letters, refunds, e-mails) is counted for
information, and breaks no promise.
"""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from booking_platform.operations import auditing
from booking_platform.operations.auditing import Report
from booking_platform.operations.audits import AUDITS, Audit, Finding

LISTED = 1000  # findings of an audit in JSON, which is written at the end
FOUND, INCOMPLETE = 1, 2


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        for audit in AUDITS.values():
            if audit.outside:
                text = f"ask {audit.outside}, too: {audit.promise}"
                parser.add_argument(f"--{audit.outside}", action="store_true", help=text)
        parser.add_argument("--json", action="store_true", help="print one JSON object instead")

    def handle(self, *args: Any, **options: Any) -> None:
        outside = [each.outside for each in AUDITS.values() if options.get(each.outside)]
        if options["json"]:
            report = self._as_json(outside)
        else:
            report = auditing.run(outside=outside, tell=self._say)
            self._sum_up(report)
        if report.found:
            sys.exit(FOUND)
        if not report.complete:
            sys.exit(INCOMPLETE)

    def _say(self, audit: Audit, finding: Finding) -> None:
        self.stdout.write(f"{audit.name}: {finding.words}\n    {finding.mending}")

    def _sum_up(self, report: Report) -> None:
        for result in report.results:
            found = "nothing found" if not result.found else f"{result.found} found"
            self.stdout.write(f"{result.audit.name}: {found}. {result.audit.promise}")
            if result.incomplete:
                self.stdout.write(f"{result.audit.name}: NOT COMPLETE: {result.incomplete}")
        for figure in report.figures:
            self.stdout.write(f"For information: {figure.value:g} {figure.words}.")

    def _as_json(self, outside: list[str]) -> Report:
        listed: dict[str, list[dict[str, str]]] = {}

        def keep(audit: Audit, finding: Finding) -> None:
            its = listed.setdefault(audit.name, [])
            if len(its) < LISTED:
                its.append(asdict(finding))

        report = auditing.run(outside=outside, tell=keep)
        shown = {
            "found": report.found,
            "complete": report.complete,
            "audits": [
                {
                    "name": result.audit.name,
                    "promise": result.audit.promise,
                    "found": result.found,
                    "incomplete": result.incomplete,
                    "findings": listed.get(result.audit.name, []),
                }
                for result in report.results
            ],
            "figures": {figure.name: figure.value for figure in report.figures},
        }
        self.stdout.write(json.dumps(shown, indent=2))
        return report
