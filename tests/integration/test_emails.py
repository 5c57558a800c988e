"""E-mails on a real database: which cancellations are told, and to whom."""

from dataclasses import replace
from typing import Any

import pytest

from booking_platform.development.mail_server import (
    MailServer,
)
from booking_platform.messaging import inbox, leases
from booking_platform.messaging.leases import LeaseLost
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS
from notifications import attempts
from notifications.models import CancellationEmail
from tests.emails import (
    ANN,
    QUEUE,
    cancel,
    only,
    outcomes,
    sweep,
)
from tests.events import cancelled, deliveries
from tests.platform import parked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


class TestRequests:
    def test_a_cancellation_is_told(self, mail_server: MailServer) -> None:
        cancel(paymentId="pi_1", amount=150.0)
        row = only()
        assert (row.state, row.recipient, row.locale, row.attempts) == ("sent", ANN, "fr", 1)
        assert (row.lease_until, row.next_attempt_at, row.last_error) == (None, None, "")
        assert row.sent_at is not None
        assert outcomes() == ["email_requested"]
        [mail] = mail_server.received()
        assert (mail["To"], mail["Subject"]) == (
            ANN,
            "Confirmation de votre annulation",
        )

    def test_repeats_of_an_event_tell_once(self, mail_server: MailServer) -> None:
        event = cancelled(1, "BK-1", userEmail=ANN)
        for _ in range(50):
            inbox.process(CONSUMERS[QUEUE], deliveries(event))
        assert len(mail_server.received()) == 1

    def test_a_booking_cancelled_again_for_another_address_is_parked(
        self, mail_server: MailServer
    ) -> None:
        cancel()
        cancel(email="bob@example.com")
        [letter] = DeadLetter.objects.all()
        assert letter.reason == "differs"
        assert "payload.userEmail" in letter.detail
        assert "@" not in letter.detail
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("email", [None, "", "   ", "\t\n", "\u00a0"])
    def test_without_an_address_that_is_recorded_and_no_more(
        self, mail_server: MailServer, email: str | None
    ) -> None:
        cancel(email=email)
        assert outcomes() == ["no_address"]
        assert not CancellationEmail.objects.exists()
        assert mail_server.seen == []

    def test_an_address_that_comes_later_is_told(self, mail_server: MailServer) -> None:
        cancel(email=None)
        cancel()
        cancel(email=None)
        assert outcomes() == ["no_address", "email_requested", "no_address"]
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize(
        "email",
        [
            "ann@example.com\nBcc: bob@example.com",
            "ann@example.com\r\n",
            "ann@example.com\r\nDATA",
            "ann@example.com, bob@example.com",
            "ann@example.com;bob@example.com",
            "ann@example.com bob@example.com",
            "<ann@example.com>",
            "Ann <ann@example.com>",
            '"ann durand"@example.com',
            "ann@example.com>\r\nRCPT TO:<bob@example.com",
            "änn@example.com",
            "ann@localhost",
            "ann@[127.0.0.1]",
            "ann@exa\u202emple.com",
            "ann",
            "@",
            "a" * 300 + "@example.com",
            "=?utf-8?q?bob=40evil.com?=@example.com",  # Django would write to "bob@evil.com"
            "=?utf-8?q?ann?=@example.com",
            "=?utf-8?q?a=0d=0aDATA?=@example.com",
        ],
    )
    def test_what_is_not_one_address_is_parked_without_repeating_it(
        self, mail_server: MailServer, email: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("DEBUG"):
            cancel(email=email)
        [letter] = DeadLetter.objects.all()
        assert letter.reason == "invalid"
        assert letter.detail.startswith("payload.userEmail is not one e-mail address")
        for text in (letter.detail, caplog.text):
            assert "example.com" not in text
        assert not CancellationEmail.objects.exists()
        assert mail_server.seen == []

    @pytest.mark.parametrize(
        ("email", "recipient"),
        [
            ("jean@münchen.example.com", "jean@xn--mnchen-3ya.example.com"),
            ("jean@faß.de", "jean@xn--fa-hia.de"),  # by IDNA 2003 it would be fass.de
        ],
    )
    def test_a_unicode_domain_is_written_to_in_ascii(
        self, mail_server: MailServer, email: str, recipient: str
    ) -> None:
        cancel(email=email)
        assert only().recipient == recipient
        [mail] = mail_server.received(recipient)
        assert mail["To"] == recipient

    def test_nothing_is_sent_for_an_event_that_rolls_back(self, mail_server: MailServer) -> None:
        consumer = CONSUMERS[QUEUE]

        def failing(events: Any, *, lock: bool) -> Any:
            consumer.rule(events, lock=lock)
            raise KeyError("a bug after the mail was requested")

        inbox.process(
            replace(consumer, rule=failing), deliveries(cancelled(1, "BK-1", userEmail=ANN))
        )
        assert [reason for reason, _ in parked()] == ["bug"]
        assert not CancellationEmail.objects.exists()
        assert mail_server.seen == []

    def test_a_fault_after_the_commit_parks_nothing(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_given: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(leases, "carry_on", broken)
        cancel()
        assert parked() == []
        assert only().state == "pending"
        assert only().lease_until is not None

    def test_bookings_that_differ_by_case_are_two(self, mail_server: MailServer) -> None:
        cancel("BK-a")
        cancel("bk-A")
        assert len(mail_server.received()) == 2


class TestFiles:
    def test_without_a_mail_server_each_mail_is_a_file(self, settings: Any) -> None:
        event = cancelled(1, "BK-1", userEmail=ANN)
        for _ in range(5):
            inbox.process(CONSUMERS[QUEUE], deliveries(event))
        [file] = settings.MAIL_DIR.iterdir()
        assert file.suffix == ".eml"
        assert f"To: {ANN}".encode() in file.read_bytes()
        assert only().state == "sent"

    def test_a_lost_lease_leaves_no_file(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lost(_mail: CancellationEmail) -> None:
            raise LeaseLost("another has it")

        monkeypatch.setattr(attempts, "_mark_sending", lost)
        cancel()
        assert list(settings.MAIL_DIR.iterdir()) == []

    def test_a_folder_that_can_not_be_written_delays_the_mail(self, settings: Any) -> None:
        settings.MAIL_DIR.write_text("a file where the folder should be")
        cancel()
        assert only().state == "pending"
        settings.MAIL_DIR.unlink()
        sweep()
        assert only().state == "sent"
