"""What is kept of an e-mail, where an address must not appear, and when it is forgotten."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone

from booking_platform.development.mail_server import (
    CLOSE,
    MESSAGE,
    RCPT,
    MailServer,
)
from booking_platform.messaging import inbox
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tasks import cleanup
from notifications.models import CancellationEmail
from tests.emails import (
    ANN,
    QUEUE,
    cancel,
    log_lines,
    only,
    sweep,
)
from tests.events import cancelled, deliveries
from tests.factories import EmailFactory, past

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


class TestForgetting:
    def test_old_mails_lose_address_and_text(self, settings: Any) -> None:
        old = timezone.now() - settings.EMAIL_RETENTION - timedelta(minutes=1)
        for state in ("sent", "failed", "uncertain"):
            EmailFactory.create(state=state, created_at=old, last_error="RCPT: 550 unknown")
        cleanup()
        for row in CancellationEmail.objects.all():
            assert row.forgotten
            assert {row.recipient, row.subject, row.text_body, row.html_body, row.last_error} == {
                ""
            }
            assert row.message_id
        assert CancellationEmail.objects.count() == 3

    def test_a_person_who_read_it_before_does_not_have_it_sent_to_nobody(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        old = timezone.now() - settings.EMAIL_RETENTION - timedelta(minutes=1)
        row = EmailFactory.create(state="failed", created_at=old)
        cleanup()
        assert not row.resend()
        assert only().state == "failed"

    def test_a_mail_to_nobody_is_never_said_to_be_sent(self, mail_server: MailServer) -> None:
        EmailFactory.create(recipient="", forgotten_at=timezone.now(), next_attempt_at=past())
        sweep()
        assert only().state == "pending"
        assert mail_server.received() == []

    def test_what_is_younger_or_under_way_is_kept(self, settings: Any) -> None:
        now = timezone.now()
        old = now - settings.EMAIL_RETENTION - timedelta(minutes=1)
        EmailFactory.create(
            state="sent", created_at=now - settings.EMAIL_RETENTION + timedelta(minutes=1)
        )
        EmailFactory.create(state="pending", created_at=old)
        EmailFactory.create(state="sending", created_at=old)
        cleanup()
        assert not CancellationEmail.objects.filter(forgotten_at__isnull=False).exists()


class TestPrivacy:
    @pytest.mark.parametrize(
        ("step", "answer"),
        [
            (RCPT, f"550 5.1.1 <{ANN}>: Recipient address rejected: no mailbox ann.durand here"),
            (RCPT, f"450 4.2.0 <{ANN.upper()}> greylisted"),
            (MESSAGE, f"550 5.7.1 {ANN} does not want mail"),
            (RCPT, "550 ANN.DURAND: no mailbox; ann.durand_box neither"),
            (RCPT, f"550 {'x' * 900} {ANN} unknown"),
            (MESSAGE, f"999 {ANN}"),
            (MESSAGE, CLOSE),
        ],
    )
    def test_addresses_reach_neither_logs_nor_errors(
        self, mail_server: MailServer, step: str, answer: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        mail_server.fail(step, answer)
        with caplog.at_level("DEBUG"):
            cancel()
            sweep()
        ours = [record for record in caplog.records if not record.name.startswith("mail.")]
        for text in (only().last_error, str(only()), *map(str, ours)):
            assert "durand" not in text.lower()

    def test_nor_do_other_peoples_and_parts_of_tagged_ones(self, mail_server: MailServer) -> None:
        mail_server.fail(
            RCPT, "550 ann.durand: forwarded to bob@elsewhere.example, o'x@example.com"
        )
        cancel(email="ann.durand+tours@example.com")
        assert only().last_error == "RCPT: 550 (address): forwarded to (address), o'(address)"

    def test_an_address_that_begins_with_its_tag_leaves_the_words_as_they_are(
        self, mail_server: MailServer
    ) -> None:
        mail_server.fail(RCPT, "550 5.1.1 no such user: +tours")
        cancel(email="+tours@example.com")
        assert only().last_error == "RCPT: 550 5.1.1 no such user: (address)"

    def test_the_servers_words_stay_out_of_the_log(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, "450 4.2.1 in other words")
        with log_lines() as lines:
            cancel()
        assert "code=450" in lines.getvalue()
        assert "other words" not in lines.getvalue()

    def test_a_refused_row_tells_no_address(self, mail_server: MailServer) -> None:
        def failing(events: Any, *, lock: bool) -> Any:
            raise IntegrityError(f"violates a constraint\nDETAIL:  Failing row contains ({ANN}).")

        given = deliveries(cancelled(1, "BK-1", userEmail=ANN))
        with log_lines() as lines:
            inbox.process(replace(CONSUMERS[QUEUE], rule=failing), given)
        assert DeadLetter.objects.get().detail == "IntegrityError: violates a constraint"
        assert "violates a constraint" in lines.getvalue()
        assert ANN not in lines.getvalue()

    def test_a_bug_tells_no_address(
        self,
        mail_server: MailServer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(mail: CancellationEmail) -> Any:
            raise KeyError("bug")

        monkeypatch.setattr("notifications.mailer.as_message", broken)
        with caplog.at_level("DEBUG"):
            cancel()
        assert only().state == "pending"
        assert only().next_attempt_at is not None
        assert "KeyError" in only().last_error
        assert ANN not in caplog.text
