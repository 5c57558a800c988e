"""E-mails on a real database and, over SMTP, on a mail server of our own."""

import re
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.db import connection
from django.utils import timezone

from booking_platform.development import mail_server as mail_servers
from booking_platform.development.mail_server import (
    CLOSE,
    CONNECT,
    DATA,
    DRIP,
    FLOOD,
    HOLD,
    MAIL,
    MESSAGE,
    RCPT,
    SILENCE,
    MailServer,
)
from booking_platform.messaging import inbox, leases
from booking_platform.messaging.consumers import CONSUMERS
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.tasks import cleanup
from notifications import attempts, smtp
from notifications.models import CancellationEmail
from tests.events import cancelled, deliveries
from tests.factories import EmailFactory
from tests.platform import parked
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = "notification.booking-cancelled"
ANN = "ann.durand@example.com"


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> None:
    settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 0.0


def cancel(booking: str = "BK-1", email: str | None = ANN, **over: Any) -> None:
    given = {"userEmail": email, "tourName": "Louvre", **over}
    inbox.settle(CONSUMERS[QUEUE], deliveries(cancelled(1, booking, **given)))


def sweep() -> None:
    """Do what a sweep has the workers do, once."""
    attempts.judge_abandoned()
    due = leases.due(CancellationEmail.objects.all(), timezone.now())
    for pk in list(due.values_list("pk", flat=True)):
        attempts.attempt(pk)


def expire_lease() -> None:
    past = timezone.now() - timedelta(seconds=1)
    CancellationEmail.objects.exclude(lease_until=None).update(lease_until=past)


def only() -> CancellationEmail:
    return CancellationEmail.objects.get()


def outcomes() -> list[str]:
    return list(ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True))


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
            "Confirmation d'annulation de votre réservation",
        )

    def test_repeats_of_an_event_tell_once(self, mail_server: MailServer) -> None:
        event = cancelled(1, "BK-1", userEmail=ANN)
        for _ in range(50):
            inbox.settle(CONSUMERS[QUEUE], deliveries(event))
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("again", [ANN, ANN.upper(), f" {ANN} ", "Ann.Durand@EXAMPLE.com"])
    def test_a_booking_cancelled_again_is_told_once(
        self, mail_server: MailServer, again: str
    ) -> None:
        cancel()
        cancel(email=again, tourName="Louvre by night")
        assert outcomes() == ["email_requested", "email_known"]
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

    @pytest.mark.parametrize("email", [None, "", "   "])
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

        inbox.settle(
            replace(consumer, rule=failing), deliveries(cancelled(1, "BK-1", userEmail=ANN))
        )
        assert [reason for reason, _ in parked()] == ["bug"]
        assert not CancellationEmail.objects.exists()
        assert mail_server.seen == []


class TestMessages:
    def test_a_message_carries_what_a_transactional_mail_should(
        self, mail_server: MailServer
    ) -> None:
        cancel(locale="en-GB")
        row = only()
        [mail] = mail_server.received()
        assert mail["From"] == "noreply@example.com"
        assert mail["Message-ID"] == row.message_id
        assert re.fullmatch(r"<[0-9a-f]{32}@example\.com>", row.message_id)
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail["X-Auto-Response-Suppress"] == "All"
        assert mail["Content-Language"] == "en"
        assert mail["Date"].datetime == row.created_at.replace(microsecond=0)
        assert mail["MIME-Version"] == "1.0"
        kinds = [part.get_content_type() for part in mail.walk()]
        assert kinds == ["multipart/alternative", "text/plain", "text/html"]

    def test_it_is_ascii_in_short_lines(self, mail_server: MailServer) -> None:
        cancel(tourName="Musée du Louvre " + "é" * 3000)
        [(_, raw)] = mail_server.messages
        assert raw.isascii()
        assert max(map(len, raw.split(b"\r\n"))) <= 78

    def test_a_sender_with_a_name(self, mail_server: MailServer, settings: Any) -> None:
        settings.EMAIL_FROM = "Été à Paris <noreply@été.example.com>"
        cancel()
        [mail] = mail_server.received()
        assert mail["From"].addresses[0].display_name == "Été à Paris"
        assert only().message_id.endswith("@xn--t-9fab.example.com>")

    @pytest.mark.parametrize("body", [".\n", ".\n.\nQUIT\n", "a\n..\n.b\n", "no end of line", "\n"])
    def test_lines_of_dots_arrive_as_they_are(self, mail_server: MailServer, body: str) -> None:
        row = EmailFactory(text_body=body, next_attempt_at=timezone.now())
        sweep()
        [mail] = mail_server.received()
        part = mail.get_body(("plain",))
        assert part is not None
        assert part.get_content().rstrip().splitlines() == body.rstrip().splitlines()
        row.refresh_from_db()
        assert row.state == "sent"

    @pytest.mark.parametrize(
        "name",
        ["<script>alert(1)</script>", "a\r\nBcc: bob@example.com\r\n\r\nb", "\u202egnp.exe", "x" * 10_000],
    )  # fmt: skip
    def test_a_hostile_tour_changes_nothing_but_its_own_place(
        self, mail_server: MailServer, name: str
    ) -> None:
        cancel(tourName=name, bookingId=name[:255])
        cancel("BK-2", tourName="Louvre")
        hostile, harmless = mail_server.received()
        assert hostile.keys() == harmless.keys()
        assert hostile["Subject"] == harmless["Subject"]
        html = hostile.get_body(("html",))
        assert html is not None
        assert "<script" not in html.get_content()
        assert len(html.get_content()) < 20_000


NO_ANSWER = [CLOSE, SILENCE, DRIP, FLOOD, "hello there", "999 what", "\x00\xff", "2"]


class TestAnswers:
    @pytest.mark.parametrize("answer", ["421 later", "450 later", "550 no", "554 no"])
    @pytest.mark.parametrize("step", [CONNECT, MAIL, RCPT, DATA, MESSAGE])
    def test_each_ends_as_the_policy_says(
        self, mail_server: MailServer, step: str, answer: str
    ) -> None:
        mail_server.fail(step, answer)
        cancel()
        row = only()
        again = step == CONNECT or answer.startswith("4")
        assert row.state == ("pending" if again else "failed")
        assert (row.next_attempt_at is not None) is again
        assert row.lease_until is None
        assert answer[:3] in row.last_error
        assert row.last_error.startswith(
            {CONNECT: "connection", MESSAGE: "the message"}.get(step, step)
        )
        assert mail_server.received() == []
        mail_server.mend()
        sweep()
        assert len(mail_server.received()) == again
        assert only().state == ("sent" if again else "failed")

    @pytest.mark.parametrize("answer", NO_ANSWER)
    @pytest.mark.parametrize("step", [CONNECT, MAIL, RCPT, DATA])
    def test_no_answer_before_the_message_means_not_sent(
        self, mail_server: MailServer, step: str, answer: str
    ) -> None:
        mail_server.fail(step, answer)
        begun = time.monotonic()
        cancel()
        assert time.monotonic() - begun < 5
        assert only().state == "pending"
        mail_server.mend()
        sweep()
        assert only().state == "sent"
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("answer", [*NO_ANSWER, "2" * 9000, "354 go on", "25"])
    def test_no_answer_to_the_message_is_uncertain_and_not_sent_again(
        self, mail_server: MailServer, answer: str
    ) -> None:
        mail_server.fail(MESSAGE, answer)
        begun = time.monotonic()
        cancel()
        assert time.monotonic() - begun < 5
        row = only()
        assert (row.state, row.next_attempt_at, row.lease_until) == ("uncertain", None, None)
        assert row.waits_for_person
        mail_server.mend()
        expire_lease()
        sweep()
        cancel()
        assert only().state == "uncertain"
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("code", [530, 534, 535, 538])
    @pytest.mark.parametrize("step", [MAIL, RCPT])
    def test_a_server_that_wants_a_login_has_not_refused_the_mail(
        self, mail_server: MailServer, step: str, code: int
    ) -> None:
        mail_server.fail(step, f"{code} 5.7.0 Authentication required")
        cancel()
        assert only().state == "pending"

    def test_any_yes_to_the_message_is_one(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, "251 forwarded")
        cancel()
        assert only().state == "sent"

    def test_a_refusal_counts_though_the_server_is_silent_after_it(
        self, mail_server: MailServer
    ) -> None:
        """``smtplib`` would wait for an answer to RSET, and tell of that instead."""
        mail_server.fail(MESSAGE, "550 5.7.1 no\r\n")
        mail_server.fail(RCPT, "550 5.1.1 unknown", to="bob@example.com")
        cancel()
        cancel("BK-2", "bob@example.com")
        states = CancellationEmail.objects.order_by("pk").values_list("state", flat=True)
        assert list(states) == ["failed", "failed"]

    def test_nobody_listens(self, mail_server: MailServer, settings: Any) -> None:
        settings.SMTP_PORT = 9
        cancel()
        assert only().state == "pending"
        assert "Connection refused" in only().last_error

    def test_it_is_tried_for_so_long_and_then_put_up_for_a_person(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.RETRY_ATTEMPTS = 3
        mail_server.fail(RCPT, "450 4.2.1 greylisted")
        cancel()
        sweep()
        assert only().state == "pending"
        sweep()
        row = only()
        assert (row.state, row.attempts, row.waits_for_person) == ("failed", 3, True)
        assert row.last_error == ("given up after 3 attempts; the last: RCPT: 450 4.2.1 greylisted")

    def test_nothing_is_tried_for_more_than_a_day(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, "450 later")
        cancel()
        CancellationEmail.objects.update(wanted_at=timezone.now() - timedelta(hours=25))
        sweep()
        assert only().state == "failed"

    def test_a_mail_that_kills_its_workers_is_given_up(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.RETRY_ATTEMPTS = 2
        EmailFactory(attempts=2, next_attempt_at=timezone.now())
        sweep()
        assert only().state == "failed"
        assert mail_server.seen == []

    def test_with_the_setting_an_uncertain_mail_is_sent_again(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.EMAIL_UNCERTAIN = "resend"
        mail_server.fail(MESSAGE, CLOSE, times=1)
        cancel()
        assert only().state == "pending"
        sweep()
        assert only().state == "sent"
        first, second = mail_server.received()
        assert first["Message-ID"] == second["Message-ID"]
        assert first["Date"] == second["Date"]

    def test_with_the_setting_resending_ends_too(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.EMAIL_UNCERTAIN = "resend"
        settings.RETRY_ATTEMPTS = 2
        mail_server.fail(MESSAGE, CLOSE)
        cancel()
        sweep()
        sweep()
        assert only().state == "uncertain"
        assert len(mail_server.received()) == 2


class TestConnections:
    def test_a_run_of_mails_goes_over_one(self, mail_server: MailServer) -> None:
        for number in range(5):
            cancel(f"BK-{number}")
        assert len(mail_server.received()) == 5
        assert mail_server.seen.count(CONNECT) == 1

    @pytest.mark.parametrize("answer", [CLOSE, "421 4.4.2 idle for too long"])
    @pytest.mark.parametrize("step", [MAIL, RCPT])
    def test_one_that_the_server_has_ended_is_made_anew(
        self, mail_server: MailServer, step: str, answer: str
    ) -> None:
        cancel("BK-1")
        mail_server.fail(step, answer, times=1)
        cancel("BK-2")
        assert len(mail_server.received()) == 2
        assert mail_server.seen.count(CONNECT) == 2
        assert set(CancellationEmail.objects.values_list("attempts", flat=True)) == {1}

    def test_one_that_ends_with_the_message_is_not(self, mail_server: MailServer) -> None:
        cancel("BK-1")
        mail_server.fail(MESSAGE, CLOSE)
        cancel("BK-2")
        assert CancellationEmail.objects.get(booking_id="BK-2").state == "uncertain"
        assert len(mail_server.received()) == 2

    def test_after_a_refusal_the_next_mail_is_sent(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, "550 5.1.1 unknown", to="bob@example.com")
        cancel("BK-1", "bob@example.com")
        cancel("BK-2")
        assert len(mail_server.received()) == 1

    def test_an_idle_one_is_closed(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.05)
        cancel("BK-1")
        wait_until(
            lambda: smtp._kept.backend is not None and smtp._kept.backend.connection is None,
            seconds=5,
            what="the connection is closed",
        )
        cancel("BK-2")
        assert mail_server.seen.count(CONNECT) == 2
        assert len(mail_server.received()) == 2


class TestTls:
    @pytest.fixture
    def authority(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
        """An authority that this process trusts."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        return authority

    @staticmethod
    def context(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    @pytest.fixture
    def use(self, settings: Any) -> Iterator[Any]:
        def use(server: MailServer, security: str) -> None:
            settings.SMTP_HOST, settings.SMTP_PORT = "localhost", server.port
            settings.SMTP_SECURITY, settings.SMTP_TIMEOUT_SECONDS = security, 1.0

        yield use
        smtp.hang_up()

    def test_starttls(self, authority: trustme.CA, use: Any) -> None:
        with mail_servers.running(tls_context=self.context(authority)) as server:
            use(server, "starttls")
            cancel()
            assert only().state == "sent"
            assert server.encrypted == [True]

    def test_tls(self, authority: trustme.CA, use: Any) -> None:
        with mail_servers.running(ssl_context=self.context(authority)) as server:
            use(server, "tls")
            cancel()
            assert only().state == "sent"

    def test_a_server_without_tls_gets_nothing_where_it_is_required(
        self, mail_server: MailServer, use: Any
    ) -> None:
        use(mail_server, "starttls")
        cancel()
        row = only()
        assert row.state == "pending"
        assert "STARTTLS" in row.last_error
        assert mail_server.seen == [CONNECT]

    def test_a_server_without_tls_is_no_tls_server(self, mail_server: MailServer, use: Any) -> None:
        use(mail_server, "tls")
        cancel()
        assert only().state == "pending"
        assert MAIL not in mail_server.seen

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_a_certificate_of_nobodys_is_refused(self, use: Any, security: str) -> None:
        context = self.context(trustme.CA())
        way = {"starttls": "tls_context", "tls": "ssl_context"}[security]
        with mail_servers.running(**{way: context}) as server:
            use(server, security)
            cancel()
            row = only()
            assert row.state == "pending"
            assert "CERTIFICATE_VERIFY_FAILED" in row.last_error
            assert MAIL not in server.seen

    def test_a_certificate_of_another_host_is_refused(
        self, authority: trustme.CA, use: Any
    ) -> None:
        context = self.context(authority, "mail.example.com")
        with mail_servers.running(tls_context=context) as server:
            use(server, "starttls")
            cancel()
            assert only().state == "pending"
            assert "Hostname mismatch" in only().last_error

    @pytest.mark.parametrize(("password", "state"), [("right", "sent"), ("wrong", "pending")])
    def test_it_logs_in(
        self, authority: trustme.CA, use: Any, settings: Any, password: str, state: str
    ) -> None:
        settings.SMTP_USER, settings.SMTP_PASS = "platform@example.com", password

        def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
            from aiosmtpd.smtp import AuthResult

            return AuthResult(success=data.password == b"right", handled=data.password == b"right")

        options = {"authenticator": check, "auth_required": True}
        with mail_servers.running(tls_context=self.context(authority), **options) as server:
            use(server, "starttls")
            cancel()
            assert only().state == state
            assert ("535" in only().last_error) == (password == "wrong")
            assert password not in only().last_error


class TestLeases:
    def test_a_late_answer_settles_what_was_uncertain(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, HOLD)
        late = threading.Thread(target=self.cancel_elsewhere)
        late.start()
        wait_until(lambda: MESSAGE in mail_server.seen, seconds=10, what="it is handed over")
        assert only().state == "sending"
        expire_lease()
        sweep()
        row = only()
        assert (row.state, row.lease_until) == ("uncertain", None)
        assert row.last_error == "its worker was lost while it handed the mail over"
        mail_server.release()
        late.join()
        row = only()
        assert (row.state, row.last_error) == ("sent", "")
        assert len(mail_server.received()) == 1

    def test_a_late_answer_changes_nothing_that_a_person_decided(
        self, mail_server: MailServer
    ) -> None:
        mail_server.fail(MESSAGE, HOLD)
        late = threading.Thread(target=self.cancel_elsewhere)
        late.start()
        wait_until(lambda: MESSAGE in mail_server.seen, seconds=10, what="it is handed over")
        expire_lease()
        sweep()
        assert only().settle(by="ann", why="told by phone")
        mail_server.release()
        late.join()
        row = only()
        assert (row.state, row.settlement) == ("uncertain", "told by phone")

    @staticmethod
    def cancel_elsewhere() -> None:
        try:
            with pytest.MonkeyPatch.context():
                cancel()
        finally:
            smtp.hang_up()
            connection.close()

    def test_no_message_goes_out_after_its_lease(
        self, mail_server: MailServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        mail_server.fail(DATA, HOLD)
        late = threading.Thread(target=self.cancel_elsewhere)
        late.start()
        wait_until(lambda: DATA in mail_server.seen, seconds=10, what="DATA is waiting")
        expire_lease()
        mail_server.mend()
        sweep()  # another worker, which is quicker
        assert only().state == "sent"
        mail_server.release()
        late.join()
        assert len(mail_server.received()) == 1
        assert "Lease lost" in caplog.text

    def test_a_worker_lost_before_the_message_delays_it(self, mail_server: MailServer) -> None:
        past = timezone.now() - timedelta(seconds=1)
        EmailFactory(attempts=1, lease_until=past, lease_token="7" * 32)
        sweep()
        assert only().state == "sent"
        assert len(mail_server.received()) == 1

    def test_a_worker_lost_with_the_message_leaves_it_to_a_person(
        self, mail_server: MailServer
    ) -> None:
        past = timezone.now() - timedelta(seconds=1)
        EmailFactory(state="sending", attempts=1, lease_until=past, lease_token="7" * 32)
        attempts.attempt(only().pk)  # asked for before its state was known
        sweep()
        assert only().state == "uncertain"
        assert str(only().lease_token) == "77777777-7777-7777-7777-777777777777"
        assert mail_server.seen == []

    def test_one_that_is_being_sent_is_left_alone(self, mail_server: MailServer) -> None:
        later = timezone.now() + timedelta(minutes=1)
        EmailFactory(state="sending", attempts=1, lease_until=later, lease_token="7" * 32)
        sweep()
        assert only().state == "sending"

    def test_an_answer_that_can_not_be_stored_leaves_it_to_a_person(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        EmailFactory(next_attempt_at=timezone.now())
        conclude = attempts.conclude

        def overlong(*given: Any) -> Any:
            conclusion = conclude(*given)
            conclusion.columns["state"] = "no such state"
            return conclusion

        monkeypatch.setattr(attempts, "conclude", overlong)
        sweep()
        assert only().state == "uncertain"


class TestDecisions:
    @pytest.mark.parametrize("state", ["uncertain", "failed", "pending"])
    def test_a_person_has_it_sent_again(self, mail_server: MailServer, state: str) -> None:
        row = EmailFactory(state=state, attempts=7)
        assert row.resend()
        sweep()
        again = only()
        assert (again.state, again.attempts) == ("sent", 1)
        [mail] = mail_server.received()
        assert mail["Message-ID"] == row.message_id

    @pytest.mark.parametrize(
        "columns",
        [
            {"state": "sent"},
            {"state": "sending"},
            {"state": "uncertain", "settled_at": timezone.now()},
            {"state": "failed", "forgotten_at": timezone.now(), "recipient": ""},
        ],
    )
    def test_what_can_not_be_sent_again_is_not(self, columns: dict[str, Any]) -> None:
        row = EmailFactory(**columns)
        assert not row.resend()
        assert only().next_attempt_at is None

    def test_a_person_closes_the_matter(self) -> None:
        row = EmailFactory(state="uncertain")
        assert row.settle(by="ann", why="told by phone")
        after = only()
        assert (after.state, after.settled_by, after.waits_for_person) == (
            "uncertain",
            "ann",
            False,
        )
        assert not after.settle(by="bob", why="again")

    def test_what_changed_since_it_was_read_is_not_decided_about(self) -> None:
        row = EmailFactory(state="uncertain")
        assert only().resend()
        assert not row.settle(by="ann", why="told by phone")
        assert not row.resend()


class TestForgetting:
    def test_old_mails_lose_address_and_text(self, settings: Any) -> None:
        old = timezone.now() - settings.EMAIL_RETENTION - timedelta(minutes=1)
        for state in ("sent", "failed", "uncertain"):
            EmailFactory(state=state, created_at=old, last_error="RCPT: 550 unknown")
        cleanup()
        for row in CancellationEmail.objects.all():
            assert row.forgotten
            assert {row.recipient, row.subject, row.text_body, row.html_body, row.last_error} == {
                ""
            }
            assert row.message_id
        assert CancellationEmail.objects.count() == 3

    def test_what_is_younger_or_under_way_is_kept(self, settings: Any) -> None:
        now = timezone.now()
        old = now - settings.EMAIL_RETENTION - timedelta(minutes=1)
        EmailFactory(state="sent", created_at=now - settings.EMAIL_RETENTION + timedelta(minutes=1))
        EmailFactory(state="pending", created_at=old)
        EmailFactory(state="sending", created_at=old)
        cleanup()
        assert not CancellationEmail.objects.filter(forgotten_at__isnull=False).exists()

    def test_a_booking_cancelled_again_after_that_is_known(self, mail_server: MailServer) -> None:
        EmailFactory(booking_id="BK-1", state="sent", recipient="", forgotten_at=timezone.now())
        cancel()
        assert outcomes() == ["email_known"]
        assert mail_server.seen == []


class TestPrivacy:
    @pytest.mark.parametrize(
        ("step", "answer"),
        [
            (RCPT, f"550 5.1.1 <{ANN}>: Recipient address rejected: no mailbox ann.durand here"),
            (RCPT, f"450 4.2.0 <{ANN.upper()}> greylisted"),
            (MESSAGE, f"550 5.7.1 {ANN} does not want mail"),
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


class TestFiles:
    def test_without_a_mail_server_each_mail_is_a_file(self, settings: Any) -> None:
        event = cancelled(1, "BK-1", userEmail=ANN)
        for _ in range(5):
            inbox.settle(CONSUMERS[QUEUE], deliveries(event))
        [file] = settings.MAIL_DIR.iterdir()
        assert file.suffix == ".eml"
        assert f"To: {ANN}".encode() in file.read_bytes()
        assert only().state == "sent"

    def test_a_folder_that_can_not_be_written_delays_the_mail(self, settings: Any) -> None:
        settings.MAIL_DIR.write_text("a file where the folder should be")
        cancel()
        assert only().state == "pending"
        settings.MAIL_DIR.unlink()
        sweep()
        assert only().state == "sent"
