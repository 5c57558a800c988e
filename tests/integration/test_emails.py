"""E-mails on a real database: whom they tell, when, and what is kept of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError
from django.utils import timezone

from booking_platform.development.mail_server import (
    CLOSE,
    DATA,
    HOLD,
    MESSAGE,
    RCPT,
    MailServer,
)
from booking_platform.messaging import inbox, leases
from booking_platform.messaging.leases import LeaseLost
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tasks import cleanup
from notifications import attempts, rules, tasks
from notifications.models import CancellationEmail
from tests.emails import (
    ANN,
    QUEUE,
    cancel,
    elsewhere,
    expire_lease,
    log_lines,
    only,
    outcomes,
    past,
    sweep,
)
from tests.events import cancelled, deliveries
from tests.factories import EmailFactory
from tests.platform import parked
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> None:
    settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 0.0


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
            inbox.process(CONSUMERS[QUEUE], deliveries(event))
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


class TestLeases:
    def test_a_late_answer_settles_what_was_uncertain(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, HOLD)
        late = elsewhere()
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
        late = elsewhere()
        wait_until(lambda: MESSAGE in mail_server.seen, seconds=10, what="it is handed over")
        expire_lease()
        sweep()
        assert only().settle(by="ann", why="told by phone")
        mail_server.release()
        late.join()
        row = only()
        assert (row.state, row.settlement) == ("uncertain", "told by phone")

    def test_no_message_goes_out_after_its_lease(
        self, mail_server: MailServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        mail_server.fail(DATA, HOLD)
        late = elsewhere()
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
        EmailFactory.create(attempts=1, lease_until=past(), lease_token="7" * 32)
        sweep()
        assert only().state == "sent"
        assert len(mail_server.received()) == 1

    def test_a_worker_lost_with_the_message_leaves_it_to_a_person(
        self, mail_server: MailServer
    ) -> None:
        EmailFactory.create(state="sending", attempts=1, lease_until=past(), lease_token="7" * 32)
        tasks.attempt(only().pk)  # asked for before its state was known
        sweep()
        assert only().state == "uncertain"
        assert str(only().lease_token) == "77777777-7777-7777-7777-777777777777"
        assert mail_server.seen == []

    def test_one_that_is_being_sent_is_left_alone(self, mail_server: MailServer) -> None:
        later = timezone.now() + timedelta(minutes=1)
        EmailFactory.create(state="sending", attempts=1, lease_until=later, lease_token="7" * 32)
        sweep()
        assert only().state == "sending"

    def test_one_that_is_not_over_yet_is_nobodys_to_judge(self) -> None:
        soon = timezone.now() + timedelta(seconds=0.9)
        EmailFactory.create(state="sending", attempts=1, lease_until=soon, lease_token="7" * 32)
        assert leases.conclude_lost(CancellationEmail, attempts.lost) == 0
        assert only().state == "sending"

    def test_what_changes_while_it_is_judged_is_left_alone(self) -> None:
        EmailFactory.create(state="sending", attempts=1, lease_until=past(), lease_token="7" * 32)

        def overtaken(*given: Any) -> Any:
            CancellationEmail.objects.update(lease_token="8" * 32)
            return attempts.lost(*given)

        assert leases.conclude_lost(CancellationEmail, overtaken) == 0
        assert only().state == "sending"

    def test_a_new_mail_is_its_creators(self, mail_server: MailServer, settings: Any) -> None:
        settings.SMTP_TIMEOUT_SECONDS = 5.0
        mail_server.fail(RCPT, HOLD, times=1)
        creator = elsewhere()
        wait_until(lambda: RCPT in mail_server.seen, seconds=10, what="it is under way")
        sweep()
        assert mail_server.seen.count(RCPT) == 1
        mail_server.release()
        creator.join()
        assert (only().state, only().attempts) == ("sent", 1)

    def test_no_message_goes_out_after_its_lease_though_nobody_took_it(self) -> None:
        row = EmailFactory.create(attempts=1, lease_token="7" * 32, lease_until=past())
        with pytest.raises(LeaseLost):
            attempts._mark_sending(row)
        assert only().state == "pending"

    def test_the_message_and_its_answer_have_a_whole_lease(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.SMTP_TIMEOUT_SECONDS, settings.LEASE_SECONDS = 5.0, 60.0
        mail_server.fail(MESSAGE, HOLD)
        row = EmailFactory.create(
            attempts=1, lease_token="7" * 32, lease_until=timezone.now() + timedelta(seconds=20)
        )
        holder = elsewhere(leases.carry_on, row, attempts.attempt)
        wait_until(lambda: MESSAGE in mail_server.seen, seconds=10, what="it is handed over")
        lease_until = only().lease_until
        assert lease_until is not None
        assert lease_until - timezone.now() > timedelta(seconds=50)
        mail_server.release()
        holder.join()
        assert only().state == "sent"

    @pytest.mark.parametrize("state", ["sent", "failed", "uncertain"])
    def test_only_what_is_pending_is_sent(self, mail_server: MailServer, state: str) -> None:
        EmailFactory.create(state=state, next_attempt_at=timezone.now())
        sweep()
        assert (only().state, only().next_attempt_at) == (state, None)
        assert mail_server.seen == []

    def test_with_the_setting_a_lost_workers_mail_is_sent_again(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.EMAIL_UNCERTAIN = "resend"
        EmailFactory.create(state="sending", attempts=1, lease_until=past(), lease_token="7" * 32)
        sweep()
        assert (only().state, only().unanswered) == ("sent", 1)

    def test_an_answer_that_can_not_be_stored_leaves_it_to_a_person(
        self,
        mail_server: MailServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        EmailFactory.create(next_attempt_at=timezone.now())
        judge = rules.judge

        def overlong(*given: Any) -> Any:
            conclusion = judge(*given)
            conclusion.columns["state"] = "no such state"
            return conclusion

        monkeypatch.setattr(rules, "judge", overlong)
        with log_lines() as lines:
            sweep()
        assert only().state == "uncertain"
        # PostgreSQL repeats the row that it refuses.
        assert "cancellation_emails_state" in lines.getvalue()
        assert only().recipient not in lines.getvalue()


class TestDecisions:
    @pytest.mark.parametrize("state", ["uncertain", "failed", "pending"])
    def test_a_person_has_it_sent_again(self, mail_server: MailServer, state: str) -> None:
        row = EmailFactory.create(state=state, attempts=7)
        assert row.resend()
        sweep()
        again = only()
        assert (again.state, again.attempts) == ("sent", 1)
        [mail] = mail_server.received()
        assert mail["Message-ID"] == row.message_id

    def test_a_resend_has_a_day_of_its_own(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, "450 later")
        row = EmailFactory.create(state="failed", wanted_at=timezone.now() - timedelta(days=3))
        assert row.resend()
        sweep()
        assert only().state == "pending"

    @pytest.mark.parametrize("answer", ["550 5.1.1 unknown", "450 4.2.1 later"])
    def test_what_may_have_been_sent_before_is_never_said_not_to_be(
        self, mail_server: MailServer, settings: Any, answer: str
    ) -> None:
        settings.RETRY_ATTEMPTS = 1
        mail_server.fail(MESSAGE, CLOSE, times=1)
        cancel()
        assert only().resend()
        mail_server.fail(RCPT, answer)
        sweep()
        assert only().state == "uncertain"
        assert only().last_error.endswith("; an earlier attempt got no answer")
        assert answer in only().last_error

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
        row = EmailFactory.create(**columns)
        assert not row.resend()
        assert only().next_attempt_at is None

    def test_a_person_closes_the_matter(self) -> None:
        row = EmailFactory.create(state="uncertain")
        assert row.settle(by="ann", why="told by phone")
        after = only()
        assert (after.state, after.settled_by, after.waits_for_person) == (
            "uncertain",
            "ann",
            False,
        )
        assert not after.settle(by="bob", why="again")

    def test_what_changed_since_it_was_read_is_not_decided_about(self) -> None:
        row = EmailFactory.create(state="uncertain")
        assert only().resend()
        assert not row.settle(by="ann", why="told by phone")
        assert not row.resend()


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
        EmailFactory.create(
            recipient="", forgotten_at=timezone.now(), next_attempt_at=timezone.now()
        )
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

    def test_a_booking_cancelled_again_after_that_is_known(self, mail_server: MailServer) -> None:
        EmailFactory.create(
            booking_id="BK-1", state="sent", recipient="", forgotten_at=timezone.now()
        )
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
