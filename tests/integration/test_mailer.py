"""What each answer of a mail server means, over SMTP, with a mail server of our own."""

import re
import ssl
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.utils import timezone

from booking_platform.development import mail_server as mail_servers
from booking_platform.development.mail_server import (
    CLOSE,
    CONNECT,
    DATA,
    DRIP,
    EHLO,
    FLOOD,
    HOLD,
    MAIL,
    MESSAGE,
    QUIT,
    RCPT,
    SILENCE,
    MailServer,
)
from notifications import answers, smtp
from notifications.models import CancellationEmail
from tests.emails import ANN, cancel, elsewhere, expire_lease, only, sweep
from tests.factories import EmailFactory, past
from tests.servers import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


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
        row = EmailFactory.create(text_body=body, next_attempt_at=past())
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


IMPATIENT = 1.5  # seconds: for tests that wait for what does not come
SOON = 30  # seconds: on a loaded machine, too
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
        self, mail_server: MailServer, settings: Any, step: str, answer: str
    ) -> None:
        settings.SMTP_TIMEOUT_SECONDS = IMPATIENT
        mail_server.fail(step, answer)
        begun = time.monotonic()
        cancel()
        assert time.monotonic() - begun < SOON
        assert only().state == "pending"
        mail_server.mend()
        smtp.hang_up()  # the next connection has the patience of the settings again
        settings.SMTP_TIMEOUT_SECONDS = 60.0
        sweep()
        assert only().state == "sent"
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("answer", [*NO_ANSWER, "2" * 9000, "354 go on", "25"])
    def test_no_answer_to_the_message_is_uncertain_and_not_sent_again(
        self, mail_server: MailServer, settings: Any, answer: str
    ) -> None:
        settings.SMTP_TIMEOUT_SECONDS = IMPATIENT
        mail_server.fail(MESSAGE, answer)
        begun = time.monotonic()
        cancel()
        assert time.monotonic() - begun < SOON
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

    def test_a_wish_for_a_login_in_answer_to_the_message_is_a_refusal(
        self, mail_server: MailServer
    ) -> None:
        mail_server.fail(MESSAGE, "530 5.7.0 no")
        cancel()
        assert only().state == "failed"

    def test_only_354_lets_the_message_go(self, mail_server: MailServer) -> None:
        mail_server.fail(DATA, "250 OK")
        cancel()
        assert only().state == "pending"
        assert MESSAGE not in mail_server.seen

    def test_a_fault_of_ours_after_the_message_is_uncertain(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        getreply = smtp.Conversation.getreply

        def broken(conversation: smtp.Conversation) -> Any:
            if conversation.step == answers.MESSAGE:
                raise KeyError("a bug")
            return getreply(conversation)

        monkeypatch.setattr(smtp.Conversation, "getreply", broken)
        cancel()
        assert only().state == "uncertain"

    @pytest.mark.parametrize(("answer", "seconds"), [(FLOOD, 60.0), (DRIP, IMPATIENT)])
    def test_an_answer_without_end_ends(
        self, mail_server: MailServer, settings: Any, answer: str, seconds: float
    ) -> None:
        settings.SMTP_TIMEOUT_SECONDS = seconds
        mail_server.fail(RCPT, answer)
        begun = time.monotonic()
        cancel()
        assert time.monotonic() - begun < SOON
        assert only().state == "pending"

    def test_words_that_are_long_or_no_text_are_cut(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, "550 a\x07b\x1b[31m " + "word " * 10_000)
        cancel()
        assert only().last_error.isprintable()
        assert len(only().last_error) < 350

    def test_a_server_that_needs_more_than_the_lease_is_told_of(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        """Each answer is in time; together, before the message, they are not."""
        settings.LEASE_SECONDS = IMPATIENT
        mail_server.fail(RCPT, HOLD)
        cancel()
        row = only()
        assert (row.state, row.lease_until) == ("pending", None)
        assert row.last_error == "RCPT: no whole answer in time"
        assert row.next_attempt_at is not None

    @pytest.mark.parametrize(
        ("step", "said"),
        [(CONNECT, "connection"), (MAIL, "MAIL"), (DATA, "DATA"), (MESSAGE, "the message")],
    )
    def test_what_is_not_smtp_is_said_to_be_that(
        self, mail_server: MailServer, step: str, said: str
    ) -> None:
        mail_server.fail(step, "hello there")
        cancel()
        assert only().last_error == f"{said}: an answer that is not SMTP"

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
        EmailFactory.create(attempts=2, next_attempt_at=past())
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
        mail_server.fail(MESSAGE, CLOSE)
        cancel()
        for _ in range(5):
            sweep()
        assert (only().state, only().attempts) == ("uncertain", 2)
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

    def test_what_the_server_said_to_nobody_refuses_no_mail(self, mail_server: MailServer) -> None:
        """Said while the connection was idle, it is read as the answer to the next command."""
        mail_server.fail(MESSAGE, "250 OK\r\n550 5.7.0 this session is over", times=1)
        cancel("BK-1")
        cancel("BK-2")
        assert set(CancellationEmail.objects.values_list("state", flat=True)) == {"sent"}

    def test_threads_have_their_own(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, HOLD, to="bob@example.com")
        slow = elsewhere(cancel, "BK-1", "bob@example.com")
        wait_until(lambda: RCPT in mail_server.seen, what="one is held")
        quick = elsewhere(cancel, "BK-2")
        quick.join(SOON)  # and not as long as the other is held
        told = len(mail_server.received(ANN))
        mail_server.release()
        slow.join()
        quick.join()
        assert told == 1

    def test_one_in_use_is_not_closed_as_idle(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each mail puts the end off."""
        ends = []
        for number in range(3):
            monkeypatch.setattr(smtp, "IDLE_SECONDS", 60.0 + number)
            cancel(f"BK-{number}")
            assert smtp._kept.backend is not None
            ends.append(smtp._kept.backend._closing)
        *put_off, last = ends
        for end in put_off:
            assert end is not None
            end.join(SOON)
            assert not end.is_alive()
        assert last is not None
        assert last.is_alive()
        assert mail_server.seen.count(CONNECT) == 1

    def test_a_server_that_does_not_say_goodbye_holds_up_nobody(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cancel("BK-1")
        mail_server.fail(QUIT, SILENCE)
        monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.2)
        begun = time.monotonic()
        smtp.hang_up()
        assert time.monotonic() - begun < SOON
        assert QUIT in mail_server.seen

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
            settings.SMTP_SECURITY = security

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
        assert mail_server.seen == [CONNECT, EHLO]

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
            refused = "connection: SMTPAuthenticationError: 535"  # not a word of the server's
            assert only().last_error == (refused if password == "wrong" else "")
