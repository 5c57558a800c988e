"""The command that compares: what it can't do, what it prints, what it is told."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError
from django.db import connection
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from payments.keys import NAMESPACE
from payments.management.commands.reconcile_refunds import moment
from payments.models import Refund
from tests.integration.comparing import (
    all_columns,
    change,
    in_the_dashboard,
    kinds,
    refunded,
    run,
)

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.django_db(transaction=True)
class TestFailure:
    def test_a_stripe_that_is_away_is_no_agreement(self) -> None:
        status, said = run()
        assert status == 2
        assert "no answer from Stripe" in said
        assert "difference" not in said

    @pytest.mark.parametrize("fault", ["unauthorized", "forbidden", "unavailable", "rate_limited",
                                       "garbage", "truncated", "drop_before"])  # fmt: skip
    def test_a_stripe_that_does_not_answer_is_no_agreement(
        self, stripe: Sandbox, fault: str
    ) -> None:
        refunded(stripe)
        stripe.fail(fault, method="GET")
        status, said = run()
        assert status == 2
        assert "The comparison is not complete" in said

    def test_a_wrong_key_is_no_agreement(self, stripe: Sandbox, settings: Any) -> None:
        settings.STRIPE_SECRET_KEY = "sk_live_1234567890"
        status, said = run()
        assert status == 2
        assert "401" in said
        assert "1234567890" not in said

    def test_a_refund_that_can_not_be_asked_for_is_no_agreement(self, stripe: Sandbox) -> None:
        refunded(stripe, stripe_refund_id="re_gone")
        other = refunded(stripe, "BK-2", stripe_status="pending")
        stripe.fail("slow_after", method="GET")  # by no time at all: lets the list pass
        stripe.fail("unavailable", method="GET")
        before = all_columns()
        status, said = run()
        assert status == 2
        assert "what it has as re_gone" in said
        assert f"refund {other.stripe_refund_id}" in said  # what was found till then is said
        assert all_columns() == before

    def test_a_database_without_the_table_is_no_agreement(self, stripe: Sandbox) -> None:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Refund, "idempotency_store", "put_away")
        try:
            status, said = run()
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(Refund, "put_away", "idempotency_store")
        assert status == 2
        assert "The database could not be asked" in said

    @pytest.mark.parametrize(
        ("environment", "arguments", "words"),
        [
            ({}, ["--since", "soon"], "--since is 'soon'"),
            ({"STRIPE_API_BASE": "http://127.0.0.1:9"}, [], "no answer from Stripe"),
            (
                {"DATABASE_URL": "postgres://postgres@127.0.0.1:9/none"},
                [],
                "The database could not",
            ),
        ],
    )
    def test_the_process_ends_with_status_2(
        self, stripe: Sandbox, environment: dict[str, str], arguments: list[str], words: str
    ) -> None:
        known = {**os.environ, "STRIPE_API_BASE": stripe.url, **environment}
        command = [sys.executable, "manage.py", "reconcile_refunds", *arguments]
        ended = subprocess.run(
            command,
            env=known,
            cwd=django_settings.BASE_DIR,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 2
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""


HOSTILE = "BK\n0 differences\x1b[2J\x1b]0;owned\x07\r\u202e\u2028"


@pytest.mark.django_db(transaction=True)
class TestHostileText:
    @pytest.mark.parametrize("how", ["missing", "extra", "unknown", "other"])
    def test_it_prints_no_text_that_a_terminal_obeys(self, stripe: Sandbox, how: str) -> None:
        row = refunded(stripe, HOSTILE)
        if how == "missing":
            change(row, stripe_refund_id="re_\x1b[2J\n", payment_id=HOSTILE)
            stripe.reset()
        elif how == "extra":
            in_the_dashboard(row.payment_id, booking_id=HOSTILE)
        elif how == "unknown":
            row.delete()
            bad_key = {"idempotency_key": f"{NAMESPACE}\0\n\x1b[2J", "booking_id": HOSTILE}
            in_the_dashboard(stripe.payment(amount=5_000, currency="eur"), **bad_key)
        else:
            change(row, stripe_status="\x1b[2J\n")
        status, said = run()
        assert status == 1
        lines = said.splitlines()
        assert len(lines) == len(kinds(said)) + 2
        assert all(line.isprintable() for line in lines)
        assert all(error.isprintable() for error in Refund.objects.values_list("last_error", flat=True))  # fmt: skip


class TestSince:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
            ("30d", NOW - timedelta(days=30)),
            ("2026-11-01T12:30:00", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
            ("2026-11-01T12:30:00+01:00", datetime(2026, 11, 1, 11, 30, tzinfo=UTC)),
            ("2026-11-01T12:30:00Z", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
        ],
    )
    def test_it_reads_days_and_times(self, text: str, expected: datetime) -> None:
        assert moment(text, NOW) == expected

    def test_a_day_begins_where_the_platform_is(self, settings: Any) -> None:
        with timezone.override("Europe/Paris"):
            assert moment("2026-11-01", NOW) == datetime(2026, 10, 31, 23, 0, tzinfo=UTC)

    @pytest.mark.parametrize(
        "text",
        ["", "soon", "30", "d", "-1d", "0d", "1.5d", "٣d", "2026-13-01", "2026-02-30", "99999999d",
         "9" * 5000 + "d", "2026-11-23", "2026-11-22T12:00:00", "1969-12-31", "0001-01-01",
         "9999-12-31T23:59:59-23:59", "\x1b[2J", "30d\n"],
    )  # fmt: skip
    def test_it_names_a_value_that_can_not_be(self, text: str) -> None:
        with pytest.raises(CommandError) as refusal:
            moment(text, NOW)
        assert repr(text) in str(refusal.value)
        assert str(refusal.value).isprintable()
        assert refusal.value.returncode == 2
