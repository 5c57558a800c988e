"""E-mails whose workers are killed at every point, and whose mail server fails."""

import os
from secrets import token_urlsafe
from typing import Any

import pytest

from booking_platform.development.mail_server import (
    CLOSE,
    CONNECT,
    DATA,
    HOLD,
    MAIL,
    MESSAGE,
    RCPT,
    MailServer,
)
from notifications.models import CancellationEmail
from tests.emails import expire_lease
from tests.events import cancelled
from tests.platform import Platform, parked, processed
from tests.servers import PATIENCE

QUICK = {
    "LEASE_SECONDS": "6",  # a worker that is only slow must not lose it
    "RETRY_BASE_SECONDS": "0.2",
    "RETRY_MAX_SECONDS": "0.5",
    "SWEEP_SECONDS": "0.5",
}
QUEUE = "notification."


@pytest.fixture
def mailing(platform: Platform, mail_server: MailServer) -> Platform:
    """The platform, with quick attempts at a mail server of our own and beat to sweep."""
    platform.environment |= QUICK | {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(mail_server.port)}
    platform.start_beat()
    return platform


def events(*bookings: str) -> list[dict[str, Any]]:
    return [cancelled(1, name, userEmail=address(name), event_id=f"e-{name}") for name in bookings]


def address(booking: str) -> str:
    return f"{booking.lower()}@example.com"


def states() -> dict[str, str]:
    return dict(CancellationEmail.objects.values_list("booking_id", "state"))


def at_rest() -> bool:
    """Nothing is under way, and nothing will be taken up by itself."""
    rows = CancellationEmail.objects
    waiting = rows.exclude(next_attempt_at=None).count() + rows.exclude(lease_until=None).count()
    return (
        rows.exists()
        and waiting == 0
        and not rows.filter(state__in=("pending", "sending")).exists()
    )


class TestRepeats:
    @pytest.mark.parametrize("times", [1, 8, 50])
    def test_two_workers_tell_each_customer_once(
        self, mailing: Platform, mail_server: MailServer, times: int
    ) -> None:
        for _ in range(2):
            mailing.start("-c", "4", "-Q", "notifications", wait=False)
        for worker in mailing.workers[1:]:
            worker.wait_until_ready()
        bookings = [f"BK-{number}" for number in range(3)]
        mailing.publish(events(*bookings) * times, key="booking.cancelled")
        mailing.wait_for_processed(3, queue=QUEUE)
        mailing.wait_for(at_rest, "all are told")
        # A repeat after that is one too.
        mailing.publish(events(*bookings, "BK-last"), key="booking.cancelled")
        mailing.wait_for(lambda: states().get("BK-last") == "sent", "the last is told")
        for worker in mailing.workers[1:]:
            worker.stop()
        for booking in (*bookings, "BK-last"):
            assert len(mail_server.received(address(booking))) == 1
        assert processed(QUEUE) == 4
        assert parked() == []


class TestKills:
    @pytest.mark.parametrize("step", [CONNECT, MAIL, RCPT, DATA])
    def test_a_worker_killed_before_the_message_delays_it(
        self, mailing: Platform, mail_server: MailServer, step: str
    ) -> None:
        mail_server.fail(step, HOLD)
        worker = mailing.start("-c", "1", "-Q", "notifications")
        mailing.publish(events("BK-1"), key="booking.cancelled")
        mailing.wait_for(lambda: step in mail_server.seen, f"{step} waits for its answer")
        worker.kill()
        expire_lease()
        assert states() == {"BK-1": "pending"}
        mail_server.mend()
        mail_server.release()
        mailing.start("-c", "1", "-Q", "notifications")
        mailing.wait_for(at_rest, "it is told")
        assert states() == {"BK-1": "sent"}
        assert len(mail_server.received()) == 1

    def test_a_worker_killed_after_the_message_leaves_it_to_a_person(
        self, mailing: Platform, mail_server: MailServer
    ) -> None:
        mail_server.fail(MESSAGE, HOLD, to=address("BK-1"))
        worker = mailing.start("-c", "1", "-Q", "notifications")
        mailing.publish(events("BK-1"), key="booking.cancelled")
        mailing.wait_for(lambda: MESSAGE in mail_server.seen, "it is handed over")
        worker.kill()
        expire_lease()
        assert states() == {"BK-1": "sending"}
        mailing.start("-c", "1", "-Q", "notifications")
        mailing.publish(events("BK-1", "BK-2"), key="booking.cancelled")
        mailing.wait_for(lambda: len(states()) == 2 and at_rest(), "all is decided")
        assert states() == {"BK-1": "uncertain", "BK-2": "sent"}
        assert CancellationEmail.objects.get(booking_id="BK-1").waits_for_person
        assert len(mail_server.received(address("BK-1"))) == 1

    def test_with_the_setting_to_resend_the_customer_is_told_twice(
        self, mailing: Platform, mail_server: MailServer
    ) -> None:
        """The other way to decide; and the proof that the kill above comes when a mail is out."""
        mail_server.fail(MESSAGE, HOLD, times=1)
        mailing.environment["EMAIL_UNCERTAIN"] = "resend"
        worker = mailing.start("-c", "1", "-Q", "notifications")
        mailing.publish(events("BK-1"), key="booking.cancelled")
        mailing.wait_for(lambda: MESSAGE in mail_server.seen, "it is handed over")
        worker.kill()
        expire_lease()
        mailing.start("-c", "1", "-Q", "notifications")
        mailing.wait_for(at_rest, "it is told again")
        assert states() == {"BK-1": "sent"}
        first, second = mail_server.received()
        assert first["Message-ID"] == second["Message-ID"]

    @pytest.mark.parametrize(
        ("point", "state", "mails"),
        [
            ("after the mail's intent", "sent", 1),
            ("before it is marked sent", "sent", 1),
            ("with the mail", "uncertain", 0),
            ("after the mail", "uncertain", 1),
            ("after the result", "sent", 1),
        ],
    )
    def test_at_every_point_at_most_one_mail(
        self, mailing: Platform, mail_server: MailServer, point: str, state: str, mails: int
    ) -> None:
        deaths = mailing.folder / "deaths"
        deaths.mkdir()
        planted = {"DIE_AT": point, "DEATHS": str(deaths)}
        for _ in range(2):
            mailing.start(
                "-c", "2", "-Q", "notifications", app="tests.faulty", wait=False, **planted
            )
        for worker in mailing.workers[1:]:
            worker.wait_until_ready()
        bookings = ("BK-1", "BK-2")
        mailing.publish(events(*bookings) * 8, key="booking.cancelled")
        mailing.wait_for(lambda: len(states()) == 2 and at_rest(), "all is decided", 300)
        # The last deaths come when all is decided already.
        mailing.wait_for(lambda: len(list(deaths.iterdir())) == 2, "each worker has died once")
        assert states() == dict.fromkeys(bookings, state)
        for booking in bookings:
            assert len(mail_server.received(address(booking))) == mails


class TestOutages:
    def test_a_mail_server_that_is_away_delays_mails_and_loses_none(
        self, mailing: Platform, mail_server: MailServer
    ) -> None:
        mail_server.fail(CONNECT, "421 4.3.2 not now")
        mailing.start("-c", "2", "-Q", "notifications")
        bookings = [f"BK-{number}" for number in range(10)]
        mailing.publish(events(*bookings), key="booking.cancelled")
        rows = CancellationEmail.objects
        mailing.wait_for(lambda: rows.filter(attempts__gte=2).count() == 10, "all were tried twice")
        assert mail_server.received() == []
        mail_server.mend()
        mailing.wait_for(at_rest, "all are told")
        assert set(states().values()) == {"sent"}
        assert len(mail_server.received()) == 10

    def test_a_connection_that_breaks_after_the_message_leaves_it_to_a_person(
        self, mailing: Platform, mail_server: MailServer
    ) -> None:
        mail_server.fail(MESSAGE, CLOSE)
        mailing.start("-c", "2", "-Q", "notifications")
        mailing.publish(events("BK-1") * 5, key="booking.cancelled")
        mailing.wait_for(at_rest, "it is decided")
        assert states() == {"BK-1": "uncertain"}
        assert len(mail_server.received()) == 1


@pytest.mark.servers
class TestStart:
    @pytest.mark.parametrize("missing", ["SMTP_HOST", "EMAIL_FROM"])
    def test_a_production_worker_does_not_start_on_mails_without_a_server_or_a_sender(
        self, platform: Platform, missing: str
    ) -> None:
        production = {
            "DJANGO_ENV": "production",
            "DJANGO_SECRET_KEY": token_urlsafe(60),
            "DJANGO_ALLOWED_HOSTS": "example.com",
            "STRIPE_API_BASE": "",
            "SMTP_HOST": "smtp.example.com",
            "EMAIL_FROM": "noreply@example.com",
        }
        refused = production | {missing: ""}
        worker = platform.start("-c", "1", "-Q", "notifications", wait=False, **refused)
        assert worker.process.wait(PATIENCE) == os.EX_CONFIG
        assert f"{missing} is not set" in worker.log
        assert "--queues" in worker.log
