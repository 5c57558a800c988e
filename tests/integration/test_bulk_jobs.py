"""Jobs about many dead letters: each is dealt with once, whoever dies, stops it or loses a right."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from booking_platform.messaging import clock, dead_letters, edits, inbox, leases, topology
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import bulk, bulk_outcomes
from booking_platform.operations.bulk_outcomes import outcomes_of
from booking_platform.operations.models import BulkJob
from booking_platform.operations.selecting import Selection
from booking_platform.operations.tasks import bulk_job
from tests.events import cancelled, created, deliveries
from tests.factories import TourFactory, past
from tests.integration.admin_pages import choose, listed, page, staff, text
from tests.platform import Platform, parked
from tests.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True)

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"
REFUNDS = "payment-gateway.booking-cancelled"
NO_TOUR = 4242
Kind = BulkJob.Kind


def park(count: int, queue: str = CREATED, tour: int = NO_TOUR) -> list[DeadLetter]:
    before = bulk.newest_letter()
    make = created if queue == CREATED else cancelled
    some = [make(tour, f"BK-{before}-{n}") for n in range(count)]
    inbox.process(CONSUMERS[queue], deliveries(*some))
    return list(DeadLetter.objects.filter(pk__gt=before).order_by("pk"))


def person(*rights: str) -> User:
    user, _ = User.objects.get_or_create(username="ada", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    return User.objects.get(pk=user.pk)


def job(
    kind: Kind = Kind.REPLAY, user: User | None = None, why: str = "a test", **conditions: Any
) -> BulkJob:
    user = user or person("replay_deadletter", "discard_deadletter")
    newest = bulk.newest_letter()
    return bulk.make(Selection(**conditions), kind, user=user, why=why, newest=newest)


def run(job: BulkJob) -> BulkJob:
    """Do one part of a job, as a worker does."""
    leases.take_up(BulkJob.objects.filter(pk=job.pk), bulk.attempt)
    job.refresh_from_db()
    return job


def sent(platform: Platform, queue: str = CREATED) -> int:
    with platform.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


class TestWhatIsInIt:
    def test_all_of_a_filter_that_were_there_when_it_was_made(self, platform: Platform) -> None:
        letters = park(3)
        inbox.process(CONSUMERS[CREATED], deliveries(b"junk"))
        made = job(reason="unknown_tour", queue=CREATED)
        assert made.total == 3
        later = park(2)
        run(made)
        assert (made.done, made.failed, made.percent) == (3, 0, 100)
        assert made.finished
        left = DeadLetter.objects.filter(state="parked")
        assert set(left) - set(later) == {DeadLetter.objects.get(reason="malformed")}
        assert sent(platform) == 3
        assert LogEntry.objects.count() == 3
        [entry] = LogEntry.objects.filter(object_id=letters[0].pk)
        assert entry.get_change_message() == f"replayed by job {made.pk}: a test"

    @pytest.mark.parametrize(
        ("conditions", "count"),
        [
            ({}, 6),
            ({"queue": CANCELLED}, 2),
            ({"queue": "other"}, 1),
            ({"event_type": "BookingCreated"}, 3),
            ({"event_type": "other"}, 1),
            ({"words": "no such tour"}, 5),
            ({"words": "BK- tour"}, 0),
            ({"words": '"no tour"'}, 0),
            ({"reason": "unknown_tour", "queue": CREATED}, 3),
        ],
        ids=str,
    )
    def test_its_conditions_are_those_of_the_list(
        self, conditions: dict[str, str], count: int
    ) -> None:
        park(3)
        park(2, CANCELLED)
        DeadLetter.objects.create(queue="elsewhere", fingerprint="f", body=b"", reason="broker")
        made = Selection.stored(conditions)
        assert made.letters().count() == count
        assert made.in_words()
        assert Selection.stored(made.as_json()) == made

    def test_those_that_were_chosen(self, platform: Platform) -> None:
        first, _, third = park(3)
        run(job(pks=(first.pk, third.pk)))
        assert DeadLetter.objects.filter(state="parked").count() == 1

    def test_what_is_parked_again_is_not_sent_again(self, platform: Platform) -> None:
        park(2)
        made = job()
        run(made)  # before a worker is there, which might park one again before it is closed
        platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for(lambda: len(parked()) == 2, "they are parked again")
        assert run(made).done == 2
        assert DeadLetter.objects.filter(state="replayed").count() == 2


class TestWhatBecomesOfEach:
    def test_discarded_ones_are_announced_and_have_a_reason(self) -> None:
        park(2)
        run(job(Kind.DISCARD, why="a partner's test"))
        letters = DeadLetter.objects.all()
        assert {each.state for each in letters} == {"discarded"}
        assert {(each.resolved_by, each.resolution) for each in letters} == {
            ("ada", "a partner's test")
        }

    def test_each_that_stays_open_is_named_with_its_reason(self, platform: Platform) -> None:
        park(1)
        foreign = DeadLetter.objects.create(
            queue="elsewhere", fingerprint="f", body=b"", reason="broker"
        )
        [edited] = park(1)
        DeadLetter.objects.filter(pk=edited.pk).update(edited_event_id="E", edited_by="bob")
        made = run(job())
        assert (made.total, made.done, made.failed) == (3, 1, 2)
        why = {each["letter"]: each["why"] for each in made.failures}
        assert "no consumer has a queue of that name" in why[foreign.pk]
        assert "bob has edited it" in why[edited.pk]
        discarding = run(job(Kind.DISCARD))
        assert [each["why"] for each in discarding.failures] == [bulk.EDITED]

    def test_the_right_of_the_refunds_queue_is_asked_for_each(self, platform: Platform) -> None:
        letters = park(1), [DeadLetter.objects.create(
            queue=REFUNDS, fingerprint="f", body=b"{}", reason="invalid", event_id="evt-money"
        )]  # fmt: skip
        made = run(job())
        assert (made.done, made.failed) == (1, 1)
        assert "you need the permission payments.request_refund" in made.failures[0]["why"]
        assert made.failures[0]["letter"] == letters[1][0].pk
        assert sent(platform, REFUNDS) == 0
        discarded = run(job(Kind.DISCARD))
        assert (discarded.done, discarded.failed) == (0, 1)  # it was to give a customer money back
        user = person("replay_deadletter", "request_refund")
        assert run(job(user=user)).done == 1

    def test_only_the_first_failures_are_kept(self) -> None:
        DeadLetter.objects.bulk_create(
            DeadLetter(queue="elsewhere", fingerprint=str(n), body=b"", reason="broker")
            for n in range(bulk.KEPT_FAILURES + 5)
        )
        made = job(Kind.REPLAY)
        while not made.finished:
            run(made)
        assert (made.failed, len(made.failures)) == (bulk.KEPT_FAILURES + 5, bulk.KEPT_FAILURES)

    def test_a_bug_about_one_holds_up_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bad, *_ = park(3)
        discard = dead_letters.discard

        def faulty(letter: DeadLetter, **decision: Any) -> bool:
            if letter == bad:
                raise KeyError("x")
            return discard(letter, **decision)

        monkeypatch.setattr(dead_letters, "discard", faulty)
        made = run(job(Kind.DISCARD))
        assert (made.done, made.failed, made.failures[0]["why"]) == (2, 1, "a bug: KeyError: 'x'")


class TestWhatBecameOfTheEvents:
    def replay(self, user: User | None = None) -> BulkJob:
        """Replay three bookings, of which one finds a seat, one none, and one is not applied yet."""
        letters = park(3)
        tour = TourFactory.create(pk=NO_TOUR, capacity=2)
        made = run(job(user=user, queue=CREATED))
        first, second, _ = ({"event_id": each.event_id} for each in letters)
        for name, each in (("BK-A", first), ("BK-B", second)):
            inbox.process(CONSUMERS[CREATED], deliveries(created(tour.pk, name, 2, **each)))
        return made

    def test_it_is_told_by_outcome_with_the_list_behind_each(
        self, platform: Platform, admin_client: Client
    ) -> None:
        park(1)
        run(job(why="another"))
        inbox.process(CONSUMERS[CREATED], deliveries(created(TourFactory.create().pk, "BK-C")))
        made = self.replay()
        told = outcomes_of(made)
        assert [(each.name, each.count) for each in told.applied] == [
            ("rejected", 1), ("reserved", 1)
        ]  # fmt: skip
        assert (told.not_applied, told.looked_at, told.more) == (1, 3, False)
        shown = text(admin_client.get(page(made)))
        assert "not yet applied, or parked again</td><td>-</td><td>1</td>" in shown
        for each in told.applied:
            assert each.url in shown
            [event] = admin_client.get(each.url).context["cl"].result_list
            assert event.outcome == each.name

    def test_an_event_of_another_consumer_is_not_of_it(self, platform: Platform) -> None:
        made = self.replay()
        event = ProcessedEvent.objects.get(outcome="reserved")
        ProcessedEvent.objects.filter(pk=event.pk).update(consumer=CANCELLED)
        told = outcomes_of(made)
        assert [each.name for each in told.applied] == ["rejected"]
        assert told.not_applied == 2

    def test_one_that_had_no_queue_is_told_of_each_consumer(self, platform: Platform) -> None:
        made = self.replay()
        BulkJob.objects.update(selection={})
        DeadLetter.objects.update(queue=topology.unroutable_queue().name)
        made.refresh_from_db()
        assert (len(outcomes_of(made).applied), outcomes_of(made).not_applied) == (2, 1)

    def test_it_is_bounded(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        made = self.replay()
        monkeypatch.setattr(bulk_outcomes, "MOST", 2)
        with CaptureQueriesContext(connection) as asked:
            told = outcomes_of(made)
        assert len(asked) == 3
        assert (sum(each.count for each in told.applied), told.not_applied) == (2, 0)
        assert told.more

    def test_it_needs_the_right_to_see_events(self, platform: Platform) -> None:
        made = self.replay()
        client = staff("view_deadletter")
        assert "What became of" not in text(client.get(page(made)))

    @pytest.mark.parametrize("value", ["0", "x", "9" * 30, "-1", ""])
    def test_events_of_no_job_are_none(self, admin_client: Client, value: str) -> None:
        inbox.process(CONSUMERS[CREATED], deliveries(created(TourFactory.create().pk, "BK")))
        assert not listed(admin_client, ProcessedEvent, job=value)

    def test_the_confirmation_says_that_a_letter_is_closed_once_it_is_sent(
        self, admin_client: Client
    ) -> None:
        [letter] = park(1)
        asked = text(choose(admin_client, "replay", letter))
        assert "A letter is closed once it is sent" in asked
        assert "finds no seats by then is rejected" in asked


class TestWhoStopsIt:
    def test_one_that_waits_is_stopped_at_once(self) -> None:
        park(2)
        made = job()
        assert made.stop(by="bob")
        assert not made.stop(by="eve")
        made.refresh_from_db()
        assert made.finished
        assert (made.stopped_by, made.next_attempt_at) == ("bob", None)
        assert run(made).done == 0
        assert made.percent < 100

    def test_one_under_way_stops_after_some_letters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "PAGE", 2)
        park(6)
        made = job(Kind.DISCARD)
        discard = dead_letters.discard

        def stopping(letter: DeadLetter, **decision: Any) -> bool:
            BulkJob.objects.get().stop(by="bob")
            return discard(letter, **decision)

        monkeypatch.setattr(dead_letters, "discard", stopping)
        run(made)
        assert (made.done, made.finished, made.stopped_by) == (2, True, "bob")
        assert made.percent == 33
        assert len(parked()) == 4

    @pytest.mark.parametrize("lost", ["right", "active", "person"])
    def test_whoever_may_not_any_more_ends_it(self, platform: Platform, lost: str) -> None:
        park(2)
        made = job()
        if lost == "right":
            person()
        elif lost == "active":
            User.objects.update(is_active=False)
        else:
            User.objects.all().delete()
        run(made)
        assert (made.done, made.finished) == (0, True)
        assert "ada is gone, or may not replay dead letters any more" in made.stopped_because

    def test_a_broker_that_is_away_is_waited_for(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        park(2)
        made = job()
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        with monkeypatch.context() as patched:
            patched.setenv("CELERY_BROKER_WRITE_URL", away)
            run(made)
        assert "The broker did not take a message" in made.last_error
        assert made.next_attempt_at
        assert made.next_attempt_at > clock.now()
        assert len(parked()) == 2
        BulkJob.objects.update(next_attempt_at=past())
        assert (run(made).done, made.last_error) == (2, "")


class TestParts:
    def test_a_part_is_bounded_and_the_next_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "SLICE_SECONDS", 0.0)
        monkeypatch.setattr(bulk, "PAGE", 2)
        letters = park(5)
        made = job(Kind.DISCARD)
        for number in range(1, 6):
            run(made)
            assert (made.done, made.finished) == (number, False)
        run(made)
        assert (made.done, made.failed, made.finished) == (len(letters), 0, True)
        assert LogEntry.objects.count() == len(letters)

    def test_whoever_was_overtaken_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        park(3)
        made = job(Kind.DISCARD)
        discard = dead_letters.discard

        def overtaken(letter: DeadLetter, **decision: Any) -> bool:
            BulkJob.objects.update(lease_token="00000000-0000-0000-0000-000000000001")
            return discard(letter, **decision)

        with monkeypatch.context() as patched:
            patched.setattr(dead_letters, "discard", overtaken)
            run(made)
        assert (made.done, made.position) == (0, 0)
        assert len(parked()) == 3
        BulkJob.objects.update(lease_until=clock.now() - timedelta(seconds=1))
        assert run(made).done == 3

    def test_the_task_asks_for_the_next_part_and_for_no_second_one(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bulk, "SLICE_SECONDS", 0.0)
        park(3)
        made = job(Kind.DISCARD)
        bulk_job(made.pk)
        assert sent(platform, "maintenance") == 1
        made.refresh_from_db()
        bulk_job(made.pk, made.attempts + 1)  # of another chain: somebody has done that part
        bulk_job(made.pk, made.attempts - 1)
        assert sent(platform, "maintenance") == 1
        assert not BulkJob.objects.get().finished

    def test_old_ones_are_forgotten(self) -> None:
        park(1)
        old, young = job(), job()
        BulkJob.objects.filter(pk=old.pk).update(finished_at=timezone.now() - timedelta(days=91))
        assert bulk.forget_jobs() == 1
        assert BulkJob.objects.get() == young


DYING = """
import os, signal, sys
import django; django.setup()
from booking_platform.messaging import broker, leases, topology
from booking_platform.operations import bulk
from booking_platform.operations.models import BulkJob
publish, sent = broker.publish, []
def dying(*given, **named):
    sent.append(1)
    if len(sent) == 3 and sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    publish(*given, **named)
    if len(sent) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
broker.publish = dying
leases.take_up(BulkJob.objects.filter(pk=int(sys.argv[1])), bulk.attempt)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_send_and_close_has_no_second_effect(platform: Platform, when: str) -> None:
    letters = park(5)
    tour = TourFactory.create(pk=NO_TOUR, capacity=10)
    made = job()
    dead = subprocess.run(
        [sys.executable, "-c", DYING, str(made.pk), when],
        env=os.environ | platform.environment
        | {"DJANGO_SETTINGS_MODULE": "booking_platform.settings"},
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
    made.refresh_from_db()
    assert (made.done, made.failed, made.position) == (2, 0, letters[1].pk)
    assert len(parked()) == 3
    run(made)
    assert made.done == 2  # its worker may still be alive: the lease has not ended
    BulkJob.objects.update(lease_until=clock.now() - timedelta(seconds=1))
    run(made)
    assert (made.done, made.failed, made.finished) == (5, 0, True)
    assert sent(platform) == (6 if when == "after" else 5)
    platform.start("-c", "1", "-Q", "catalog")
    platform.wait_for(lambda: sent(platform) == 0, "all are taken")
    platform.wait_for_processed(5)
    tour.refresh_from_db()
    assert tour.available_seats == 5
    assert ProcessedEvent.objects.count() == 5


def test_workers_and_beat_do_it_all_in_parts(platform: Platform) -> None:
    """Two workers, and one that is killed: each letter is closed once, and counted once."""
    platform.environment |= {"LEASE_SECONDS": "1", "SWEEP_SECONDS": "0.3"}
    park(400)
    made = job(Kind.DISCARD)
    workers = [platform.start("-c", "1", "-Q", "maintenance", wait=False) for _ in range(2)]
    for worker in workers:
        worker.wait_until_ready()
    platform.start_beat()
    platform.wait_for(lambda: BulkJob.objects.get().done > 20, "it is under way")
    for process in workers[0].pool():
        process.kill()
    platform.wait_for(lambda: BulkJob.objects.get().finished, "it is done")
    made.refresh_from_db()
    assert (made.done, made.failed) == (400, 0)
    assert LogEntry.objects.count() == 400
    assert not leases.due(BulkJob.objects.all(), clock.now()).exists()


def test_an_edit_of_a_letter_of_a_job_excludes_it(platform: Platform) -> None:
    [letter] = park(1)
    text = edits.draft(letter).replace(str(NO_TOUR), "5")
    edit = edits.examine(letter, text)
    made = job()
    edits.send_edited(letter, edit, by="bob", why="faster")
    run(made)
    assert (made.done, made.failed) == (0, 0)
    assert sent(platform) == 1
