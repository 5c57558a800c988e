"""What the business hears of e-mails: what came of each, and nothing of whom it is for."""

from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from booking_platform.development.mail_server import (
    CLOSE,
    DATA,
    HOLD,
    MESSAGE,
    RCPT,
    MailServer,
)
from booking_platform.messaging import leases
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.models import OutboxRow, ProcessedEvent
from notifications import announcing, attempts, retention, rules
from notifications.models import CancellationEmail
from tests.announcements import Listener, announced, kinds, payloads, words
from tests.emails import ANN, cancel, elsewhere, expire_lease, only, sweep
from tests.factories import EmailFactory, past
from tests.servers import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

SENT, FAILED = "CancellationEmailSent", "CancellationEmailFailed"
UNCERTAIN, SETTLED = "CancellationEmailUncertain", "CancellationEmailSettled"

State = CancellationEmail.State
NO_SUCH_USER = "550 5.1.1 no such user"


def nothing_private_was_told() -> bool:
    private = ("@", "ann", "durand", "phone", "Louvre", "no such user", "550", "ada")
    return not any(word in words() for word in private)


class TestOutcomes:
    def test_one_that_was_sent_is_told(self, mail_server: MailServer) -> None:
        cancel(seatsRemaining=2, revision=7, event_id="e-1")
        [event] = announced()
        assert event["eventType"] == SENT
        assert event["payload"] == {
            "bookingId": "BK-1", "seatsRemaining": 2, "revision": 7, "version": 1, "causedBy": "e-1",
        }  # fmt: skip
        assert datetime.fromisoformat(event["timestamp"]) == only().updated_at
        assert nothing_private_was_told()

    def test_while_it_is_to_be_sent_nothing_is_told(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, "450 4.2.1 later", times=3)
        cancel()
        assert announced() == []
        for _ in range(3):
            sweep()
        assert kinds() == [SENT]

    def test_one_that_was_refused_is_told_without_the_servers_words(
        self, mail_server: MailServer
    ) -> None:
        mail_server.fail(RCPT, NO_SUCH_USER)
        cancel()
        assert (kinds(), payloads()[0]["reason"]) == ([FAILED], "refused")
        assert nothing_private_was_told()

    def test_one_that_was_given_up_is_told(self, mail_server: MailServer, settings: Any) -> None:
        settings.RETRY_ATTEMPTS = 2
        mail_server.fail(RCPT, "450 4.2.1 later")
        cancel()
        sweep()
        assert (kinds(), payloads()[0]["reason"]) == ([FAILED], "given_up")

    def test_one_without_an_answer_is_told(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, CLOSE)
        cancel()
        assert (kinds(), payloads()[0]["reason"]) == ([UNCERTAIN], "no_answer")

    def test_one_whose_answer_can_not_be_stored_is_told(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rules, "judge", _unstorable)
        cancel()
        assert only().state == "uncertain"
        assert (kinds(), payloads()[0]["reason"]) == ([UNCERTAIN], "no_answer")

    def test_a_cancellation_without_an_address_is_not_told(self, mail_server: MailServer) -> None:
        cancel(email=None)
        assert announced() == []


def _unstorable(mail: CancellationEmail, *_given: object) -> Conclusion:
    return Conclusion({"state": "no such state"})


class TestLostWorkers:
    def test_a_late_answer_is_told_after_the_doubt(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, HOLD)
        late = elsewhere()
        wait_until(lambda: MESSAGE in mail_server.seen, what="it is handed over")
        expire_lease()
        sweep()
        assert kinds() == [UNCERTAIN]
        mail_server.release()
        late.join()
        assert kinds() == [UNCERTAIN, SENT]
        assert [each["version"] for each in payloads()] == [1, 2]

    def test_a_late_answer_after_a_settlement_is_not_told(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, HOLD)
        late = elsewhere()
        wait_until(lambda: MESSAGE in mail_server.seen, what="it is handed over")
        expire_lease()
        sweep()
        assert only().settle(by="ada", why="told by phone")
        mail_server.release()
        late.join()
        assert kinds() == [UNCERTAIN, SETTLED]
        assert nothing_private_was_told()

    def test_one_that_was_overtaken_tells_nothing(self, mail_server: MailServer) -> None:
        mail_server.fail(DATA, HOLD)
        late = elsewhere()
        wait_until(lambda: DATA in mail_server.seen, what="DATA is waiting")
        expire_lease()
        mail_server.mend()
        sweep()
        mail_server.release()
        late.join()
        assert kinds() == [SENT]

    def test_with_resend_the_doubt_is_not_told_before_a_person_is_needed(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        settings.EMAIL_UNCERTAIN = "resend"
        EmailFactory.create(state="sending", attempts=1, lease_until=past(), lease_token="7" * 32)
        mail_server.fail(MESSAGE, CLOSE)
        leases.conclude_lost(CancellationEmail, attempts.lost)
        assert announced() == []
        sweep()
        assert kinds() == [UNCERTAIN]


class TestDecisions:
    def test_one_that_fails_again_is_a_fact_of_its_own(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, NO_SUCH_USER)
        cancel()
        assert only().resend()
        assert kinds() == [FAILED]
        assert only().reason == ""
        sweep()
        assert kinds() == [FAILED, FAILED]
        assert len({event["eventId"] for event in announced()}) == 2
        mail_server.mend()
        assert only().resend()
        sweep()
        assert kinds() == [FAILED, FAILED, SENT]
        assert [each["version"] for each in payloads()] == [1, 2, 3]

    def test_a_settlement_is_told_without_its_words(self, mail_server: MailServer) -> None:
        mail_server.fail(RCPT, NO_SUCH_USER)
        cancel()
        assert only().settle(by="ada", why="told by phone")
        assert kinds() == [FAILED, SETTLED]
        assert "reason" not in payloads()[1]
        assert nothing_private_was_told()

    def test_forgetting_the_address_is_not_told(
        self, mail_server: MailServer, settings: Any
    ) -> None:
        mail_server.fail(RCPT, NO_SUCH_USER)
        cancel()
        old = timezone.now() - settings.EMAIL_RETENTION - settings.EMAIL_RETENTION
        CancellationEmail.objects.update(created_at=old)
        retention.forget_recipients()
        assert only().forgotten
        assert kinds() == [FAILED]


class TestReasons:
    def test_they_fit_their_column(self) -> None:
        assert all(0 < len(code) <= 30 for code in announcing.REASONS)


ACTS = st.one_of(
    st.tuples(st.just("cancel"), st.integers(0, 2)),
    st.tuples(st.just("fail"), st.sampled_from(
        [(RCPT, NO_SUCH_USER), (RCPT, "450 4.2.1 later"), (MESSAGE, CLOSE), (MESSAGE, "452 4.3.1 full")]
    )),
    st.tuples(st.sampled_from(["mend", "sweep", "wake"])),
    st.tuples(st.sampled_from(["resend", "settle", "hang", "die"]), st.integers(0, 2)),
)  # fmt: skip


class World:
    """Bookings, a mail server, workers and staff, each of whom may do anything at any time."""

    def __init__(self, mail_server: MailServer) -> None:
        self.mail_server = mail_server
        self.late: list[tuple[CancellationEmail, Conclusion]] = []
        self.mend, self.sweep = mail_server.mend, sweep

    def cancel(self, step: int) -> None:
        cancel(seatsRemaining=step)

    def fail(self, how: tuple[str, str]) -> None:
        self.mail_server.fail(*how)

    def resend(self, step: int) -> None:
        for row in CancellationEmail.objects.filter(seats_remaining=step):
            row.resend()

    def settle(self, step: int) -> None:
        for row in CancellationEmail.objects.filter(seats_remaining=step):
            row.settle(by="ada", why="told by phone")

    def hang(self, step: int) -> None:
        """Have a worker stop before it stores what came of an attempt; its lease ends."""
        rows = CancellationEmail.objects.filter(seats_remaining=step)
        leases.mark_due(rows)
        if taken := leases._take(rows):
            self.late.append((taken, attempts.attempt(taken)))
        expire_lease()

    def die(self, step: int) -> None:
        """Have a worker die while it hands the mail over."""
        rows = CancellationEmail.objects.filter(seats_remaining=step, state=State.PENDING)
        rows.update(state=State.SENDING, lease_until=past(), updated_at=timezone.now())

    def wake(self) -> None:
        for row, conclusion in self.late:
            try:
                leases._finish(row, conclusion)
            except LeaseLost:
                continue
        self.late = []


# What a listener knows of a mail that is in a state, if it knows anything.
HEARD = {State.SENT: SENT, State.FAILED: FAILED, State.UNCERTAIN: UNCERTAIN}


class TestAgainstTheTable:
    @pytest.mark.parametrize("policy", ["ask", "resend"])
    @hypothesis_settings(
        max_examples=50,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(acts=st.lists(ACTS, min_size=1, max_size=14), again=st.randoms(use_true_random=False))
    def test_a_listener_knows_each_mail_as_the_table_has_it(
        self,
        mail_server: MailServer,
        settings: Any,
        policy: str,
        acts: list[tuple[Any, ...]],
        again: Any,
    ) -> None:
        settings.EMAIL_UNCERTAIN, settings.RETRY_ATTEMPTS = policy, 3
        for model in (CancellationEmail, ProcessedEvent, OutboxRow):
            model.objects.all().delete()
        mail_server.mend()
        world, heard = World(mail_server), Listener("bookingId", "seatsRemaining")
        for name, *given_to in acts:
            getattr(world, name)(*given_to)
            events = [event for event in announced() if "Email" in event["eventType"]]
            for event in events + events[again.randint(0, len(events)) :]:  # a relay died
                heard.hear(event)
            for row in CancellationEmail.objects.all():
                last = heard.last.get((row.booking_id, row.seats_remaining))
                assert row.announced == (last["payload"]["version"] if last else 0)
                if row.settled or row.state in HEARD:
                    assert last
                    assert last["eventType"] == (
                        SETTLED if row.settled else HEARD[State(row.state)]
                    )
        assert ANN not in "".join(OutboxRow.objects.values_list("messages", flat=True))
