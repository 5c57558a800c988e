"""Which worker may send an e-mail, and what a person may decide about it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.development.mail_server import (
    CLOSE,
    DATA,
    HOLD,
    MESSAGE,
    RCPT,
    MailServer,
)
from booking_platform.messaging import clock, leases
from booking_platform.messaging.leases import LeaseLost
from notifications import attempts, rules, tasks
from notifications.models import CancellationEmail
from tests.emails import (
    cancel,
    elsewhere,
    expire_lease,
    log_lines,
    only,
    sweep,
)
from tests.factories import EmailFactory, past
from tests.servers import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


class TestLeases:
    def test_a_late_answer_settles_what_was_uncertain(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, HOLD)
        late = elsewhere()
        wait_until(lambda: MESSAGE in mail_server.seen, what="it is handed over")
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
        wait_until(lambda: MESSAGE in mail_server.seen, what="it is handed over")
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
        wait_until(lambda: DATA in mail_server.seen, what="DATA is waiting")
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
        """Not even where less than a second is left."""
        row = EmailFactory.create(state="sending", attempts=1, lease_token="7" * 32)
        until = clock.now()
        while clock.now() >= until:  # the machine may have taken longer
            until = clock.now() + timedelta(seconds=0.9)
            CancellationEmail.objects.filter(pk=row.pk).update(state="sending", lease_until=until)
            lost = leases.conclude_lost(CancellationEmail, attempts.lost)
        assert lost == 0
        assert only().state == "sending"

    def test_what_changes_while_it_is_judged_is_left_alone(self) -> None:
        EmailFactory.create(state="sending", attempts=1, lease_until=past(), lease_token="7" * 32)

        def overtaken(*given: Any) -> Any:
            CancellationEmail.objects.update(lease_token="8" * 32)
            return attempts.lost(*given)

        assert leases.conclude_lost(CancellationEmail, overtaken) == 0
        assert only().state == "sending"

    def test_a_new_mail_is_its_creators(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, HOLD, times=1)
        creator = elsewhere()
        wait_until(lambda: RCPT in mail_server.seen, what="it is under way")
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
        settings.LEASE_SECONDS = 60.0
        mail_server.fail(MESSAGE, HOLD)
        row = EmailFactory.create(
            attempts=1, lease_token="7" * 32, lease_until=timezone.now() + timedelta(seconds=20)
        )
        holder = elsewhere(leases.carry_on, row, attempts.attempt)
        wait_until(lambda: MESSAGE in mail_server.seen, what="it is handed over")
        lease_until = only().lease_until
        assert lease_until is not None
        assert lease_until - timezone.now() > timedelta(seconds=50)
        mail_server.release()
        holder.join()
        assert only().state == "sent"

    @pytest.mark.parametrize("state", ["sent", "failed", "uncertain"])
    def test_only_what_is_pending_is_sent(self, mail_server: MailServer, state: str) -> None:
        EmailFactory.create(state=state, next_attempt_at=past())
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
        EmailFactory.create(next_attempt_at=past())
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
