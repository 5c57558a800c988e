"""The steps of a booking's cancellation: one e-mail each, whatever the order, the ids and the repeats."""

from itertools import permutations
from random import Random
from typing import Any

import pytest
from django.db import connection

from booking_platform.development.mail_server import MailServer
from booking_platform.messaging.models import DeadLetter
from notifications.models import CancellationEmail
from tests.emails import ANN, cancel, elsewhere, only, outcomes
from tests.integration.email_rows import forgotten
from tests.platform import parked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

BOB = "bob@example.com"
WHOLE = {"seatsRemaining": 0}
THEN, LATER = "2026-11-20T10:00:00Z", "2026-11-21T10:00:00Z"

# What a worker of the version before does when it stores a mail.
OLD_INSERT = """
    INSERT INTO cancellation_emails (booking_id, state, recipient, locale, subject, text_body,
        html_body, message_id, created_at, wanted_at, updated_at, attempts, unanswered, last_error,
        settled_by, settlement)
    VALUES (%s, 'sent', %s, 'fr', 's', 't', 'h', %s, now(), now(), now(), 1, 0, '', '', '')
    ON CONFLICT DO NOTHING
"""


def reasons() -> list[str]:
    return [reason for reason, _ in parked()]


def steps() -> list[tuple[int, bool]]:
    rows = CancellationEmail.objects.order_by("-seats_remaining")
    return list(rows.values_list("seats_remaining", "step_named"))


def bodies(server: MailServer) -> list[str]:
    parts = [mail.get_body(("plain",)) for mail in server.received()]
    return [part.get_content() for part in parts if part is not None]


class TestNamedSteps:
    @pytest.mark.parametrize("order", list(permutations([2, 1, 0])), ids=str)
    def test_each_is_told_once_in_any_order_and_under_any_ids(
        self, mail_server: MailServer, order: tuple[int, ...]
    ) -> None:
        for day, remaining in enumerate([*order, *order, *reversed(order)], 10):
            cancel(seatsRemaining=remaining, locale="en", timestamp=f"2026-11-{day}T10:00:00Z")
        assert reasons() == []
        assert outcomes() == ["email_requested"] * 3 + ["email_known"] * 6
        assert steps() == [(2, True), (1, True), (0, True)]
        told = "".join(bodies(mail_server))
        assert told.count("Hello,") == 3
        for said in ("keeps 2 seats.", "keeps 1 seat.", "Your booking has been cancelled."):
            assert told.count(said) == 1

    def test_each_mail_has_a_message_id_of_its_own(self, mail_server: MailServer) -> None:
        for remaining in (2, 1, 0):
            cancel(seatsRemaining=remaining)
        assert len({mail["Message-ID"] for mail in mail_server.received()}) == 3

    def test_a_repeat_that_says_otherwise_what_the_mail_does_not_hang_on_is_one(
        self, mail_server: MailServer
    ) -> None:
        cancel(seatsRemaining=1)
        cancel(seatsRemaining=1, email=f" {ANN.upper()} ", tourName="Louvre by night")
        assert outcomes() == ["email_requested", "email_known"]
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("remaining", [1, 0])
    def test_a_repeat_for_another_address_is_parked(
        self, mail_server: MailServer, remaining: int
    ) -> None:
        cancel(seatsRemaining=remaining)
        cancel(email=BOB, seatsRemaining=remaining)
        [letter] = DeadLetter.objects.all()
        assert letter.reason == "differs"
        assert "@" not in letter.detail
        assert len(mail_server.received()) == 1

    def test_another_step_may_be_told_to_another_address(self, mail_server: MailServer) -> None:
        cancel(seatsRemaining=1)
        cancel(email=BOB, seatsRemaining=0)
        assert [len(mail_server.received(to)) for to in (ANN, BOB)] == [1, 1]

    def test_a_step_whose_address_is_forgotten_is_known(self, mail_server: MailServer) -> None:
        forgotten(booking_id="BK-1", state="sent", seats_remaining=1, step_named=True)
        cancel(seatsRemaining=1)
        assert outcomes() == ["email_known"]
        assert mail_server.seen == []

    def test_steps_of_a_million_seats_are_stored(self, mail_server: MailServer) -> None:
        cancel(seatsRemaining=1_000_000)
        assert steps() == [(1_000_000, True)]

    def test_workers_at_once_tell_each_step_once(self, mail_server: MailServer) -> None:
        def both() -> None:
            for remaining in (1, 0):
                cancel(seatsRemaining=remaining)

        for thread in [elsewhere(both) for _ in range(4)]:
            thread.join()
        assert reasons() == []
        assert sorted(outcomes()) == ["email_known"] * 6 + ["email_requested"] * 2
        assert len(mail_server.received()) == 2


class TestWithoutAName:
    def test_the_same_of_the_same_moment_is_a_repeat(self, mail_server: MailServer) -> None:
        for _ in range(3):
            cancel(timestamp=THEN)
        assert outcomes() == ["email_requested", "email_known", "email_known"]
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("other", [{"timestamp": LATER}, {"timestamp": THEN, "tourName": "M"}])
    def test_what_may_be_another_step_is_parked(
        self, mail_server: MailServer, other: dict[str, Any]
    ) -> None:
        cancel(timestamp=THEN)
        cancel(**other)
        cancel(**other)  # which was not told before: only parked
        assert reasons() == ["ambiguous", "ambiguous"]
        assert "seatsRemaining" in DeadLetter.objects.latest("pk").detail
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("both", [({}, WHOLE), (WHOLE, {})], ids=str)
    def test_so_is_what_only_one_of_two_events_names(
        self, mail_server: MailServer, both: tuple[dict[str, Any], ...]
    ) -> None:
        for event in both:
            cancel(**event, timestamp=THEN)
        assert reasons() == ["ambiguous"]
        assert len(mail_server.received()) == 1

    def test_a_partial_step_before_or_after_is_told(self, mail_server: MailServer) -> None:
        cancel(seatsRemaining=2)
        cancel()
        cancel(seatsRemaining=1)
        assert reasons() == []
        assert steps() == [(2, True), (1, True), (0, False)]
        assert len(mail_server.received()) == 3

    def test_a_step_whose_address_is_forgotten_is_ambiguous(self, mail_server: MailServer) -> None:
        forgotten(booking_id="BK-1", state="sent")
        cancel()
        assert reasons() == ["ambiguous"]
        assert mail_server.seen == []

    def test_where_nobody_is_to_be_told_nothing_is_parked(self, mail_server: MailServer) -> None:
        cancel()
        for event in ({}, {"timestamp": LATER}, {"tourName": "M"}, {"seatsRemaining": 0}):
            cancel(email=None, **event)
        assert reasons() == []
        assert outcomes() == ["email_requested", *["no_address"] * 4]


class TestAnyLives:
    @pytest.mark.parametrize("seed", range(4))
    def test_each_step_is_told_once_and_what_is_no_sure_repeat_is_parked(
        self, mail_server: MailServer, seed: int
    ) -> None:
        chance = Random(seed)
        told: dict[tuple[str, int], tuple[str, bool]] = {}  # by step: to whom, and whether named
        applied = set()  # what was said, and of which moment
        for _ in range(150):
            booking, moment = chance.choice("abc"), chance.choice([THEN, LATER])
            email = chance.choice([ANN, ANN, ANN, BOB, None])
            remaining = chance.choice([None, 0, 1, 2])
            step, said = (booking, remaining or 0), (booking, moment, email, remaining)
            sent_to, was_named = told.get(step, (email, True))
            expected = ["differs"] if email != sent_to else []
            if not (was_named and remaining is not None) and step in told:
                expected = [] if said in applied else expected or ["ambiguous"]
            if email is None:
                expected = []

            parked_before = DeadLetter.objects.count()
            named = {} if remaining is None else {"seatsRemaining": remaining}
            cancel(booking, email, timestamp=moment, **named)
            letters = DeadLetter.objects.order_by("pk")[parked_before:]
            assert [letter.reason for letter in letters] == expected

            if not expected:
                applied.add(said)
            if email is not None:
                told.setdefault(step, (email, remaining is not None))
        assert CancellationEmail.objects.count() == len(told)
        assert sum(len(mail_server.received(to)) for to in (ANN, BOB)) == len(told)


class TestMailsOfTheVersionBefore:
    """They name no step: the database's defaults say that they are of the whole booking."""

    def store(self, booking: str = "BK-1", message_id: str = "<1@example.com>") -> None:
        now = "CURRENT_TIMESTAMP" if connection.vendor == "sqlite" else "now()"
        with connection.cursor() as cursor:
            cursor.execute(OLD_INSERT.replace("now()", now), [booking, ANN, message_id])

    def test_a_step_is_told_beside_them(self, mail_server: MailServer) -> None:
        self.store()
        cancel(seatsRemaining=1)
        assert steps() == [(1, True), (0, False)]
        assert len(mail_server.received()) == 1

    @pytest.mark.parametrize("named", [{}, WHOLE], ids=str)
    def test_the_whole_booking_is_not_told_again(
        self, mail_server: MailServer, named: dict[str, Any]
    ) -> None:
        self.store()
        cancel(**named)
        assert reasons() == ["ambiguous"]
        assert mail_server.seen == []

    def test_a_worker_of_that_version_tells_nobody_whom_this_one_has_told(
        self, mail_server: MailServer
    ) -> None:
        cancel()
        self.store("BK-1")
        assert steps() == [(0, False)]
        self.store("BK-2")
        assert steps() == [(0, False), (0, False)]

    def test_both_versions_have_one_message_id_for_the_whole_booking(
        self, settings: Any, mail_server: MailServer
    ) -> None:
        settings.EMAIL_FROM = "noreply@example.com"
        cancel()
        assert only().message_id == "<4ee2d2dbd38d6d1c41f186dd64e60506@example.com>"


class TestRevisions:
    """After a change a booking may come to a number of seats again."""

    @pytest.mark.parametrize(("first", "second"), [(1, 3), (1, None), (None, 3)])
    def test_another_revision_of_the_same_step_is_ambiguous(
        self, first: int | None, second: int | None
    ) -> None:
        cancel("BK-1", seatsRemaining=2, revision=first)
        cancel("BK-1", seatsRemaining=2, revision=second)

        assert outcomes() == ["email_requested"]
        [letter] = DeadLetter.objects.all()
        assert (letter.reason, "revision" in letter.detail) == ("ambiguous", True)

    @pytest.mark.parametrize("revision", [1, None])
    def test_the_same_or_none_is_a_repeat(self, revision: int | None) -> None:
        cancel("BK-1", seatsRemaining=2, revision=revision)
        cancel("BK-1", seatsRemaining=2, revision=revision)

        assert outcomes() == ["email_requested", "email_known"]
