"""The dashboard: what it says, that each figure is that of the list behind it, and what it costs."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from booking_platform.messaging import broker, clock, heartbeats, outbox, topology
from booking_platform.messaging.models import DeadLetter, Heartbeat, OutboxRow, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, REASONS
from booking_platform.messaging.tallies import Counted
from booking_platform.operations import auditing, bulk, dashboard, tallies
from booking_platform.operations.audit_runs import where
from booking_platform.operations.broker_depths import Asked
from booking_platform.operations.dashboard import Dashboard, NotKnown, Panel, Part, Waiting
from booking_platform.operations.models import AuditRun, BulkJob, Tally
from booking_platform.operations.parked import MEANINGS
from booking_platform.operations.selecting import Selection
from catalog import parts
from catalog.models import Tour
from payments.models import Refund
from tests.events import cancelled, created
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    NO_TOUR,
    REFUNDS,
    listed,
    page,
    settle,
    text,
)

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = timedelta(hours=3)


@pytest.fixture
def user(db: None) -> User:
    return User.objects.create_superuser("ada")


@pytest.fixture
def client(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def well() -> None:
    """All workers were seen just now, and an audit has found nothing."""
    for queue in topology.task_queues():
        heartbeats.store(queue, "celery@here")
    auditing.run()


def a_day(number: int = 1) -> None:
    """Leave something of each kind behind, and each thing that may wait for a person."""
    tour: Tour = TourFactory.create(capacity=3)
    for each in range(number):
        its = f"{tour.pk}-{each}"
        settle(
            CREATED, created(tour.pk, f"B{its}", event_id=f"E{its}"), created(NO_TOUR, f"N{its}")
        )
        settle(CREATED, created(tour.pk, f"B{its}", event_id=f"E{its}"))
        settle(CREATED, b"{")
        settle(CANCELLED, cancelled(tour.pk, f"B{its}"))
        RefundFactory.create(needs_review=True)
        RefundFactory.create(next_attempt_at=clock.now() - LONG_AGO)
        EmailFactory.create(state="failed")
        EmailFactory.create(state="sent", sent_at=clock.now())
        tallies.add({Counted("duplicates", CREATED): 2})
    OutboxRow.objects.update(created_at=clock.now() - LONG_AGO)
    settle(CREATED, created(tour.pk, "C", 3), created(tour.pk, "D", 3))


def look(user: User) -> Dashboard:
    return dashboard.look(User.objects.get(pk=user.pk))  # with no permissions that are remembered


def waiting(user: User) -> dict[str, Waiting]:
    return {each.what: each for each in look(user).waiting}


def panel(user: User, title: str) -> Panel:
    [shown] = [each for each in look(user).shown if each.title == title]
    assert shown.problem == ""
    return shown.panel


def figures(shown: Panel) -> dict[str, object]:
    return {number.label: number.value for number in shown.numbers}


def behind(client: Client, url: str) -> int:
    """Return how many records the list has to which a figure leads."""
    answer = client.get(url)
    assert answer.status_code == 200, url
    count: int = answer.context["cl"].result_count
    assert "e=1" not in answer.request["QUERY_STRING"]
    return count


def may_view(*models: str) -> User:
    user = User.objects.create_user("grace", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"view_{m}" for m in models]))
    return user


class TestWhatWaits:
    def test_nothing_waits(self, user: User, well: None) -> None:
        shown = look(user)
        assert shown.calm
        assert not shown.waiting

    def test_each_thing_is_counted_as_the_list_behind_it(
        self, user: User, client: Client, well: None
    ) -> None:
        a_day(2)
        found = waiting(user)
        assert (
            {what: each.count for what, each in found.items()}
            == {
                f"event of a new booking, for its seats: {REASONS['malformed'].meaning}": 1,  # it came twice
                "events of new bookings, for their seats: names a tour that does not exist": 2,
                "refunds wait for a person": 2,
                "refunds are overdue": 2,
                "groups of announcements are not published": OutboxRow.objects.count() - 1,
                "e-mails wait for a person": 2,
            }
        )
        for each in found.values():
            assert behind(client, each.url) == each.count, each.what
            assert each.since is not None
            assert each.meaning

    def test_the_oldest_is_the_oldest(self, user: User, well: None) -> None:
        RefundFactory.create(needs_review=True)
        old = RefundFactory.create(needs_review=True)
        then = clock.now() - LONG_AGO
        Refund.objects.filter(pk=old.pk).update(updated_at=then)
        assert waiting(user)["refunds wait for a person"].since == then

    def test_a_job_that_no_worker_takes_up_is_said(
        self, user: User, client: Client, well: None
    ) -> None:
        bulk.make(Selection(), BulkJob.Kind.DISCARD, user=user, why="", newest=0)
        BulkJob.objects.update(next_attempt_at=clock.now() - LONG_AGO)
        found = waiting(user)["bulk job is overdue"]
        assert found.meaning.startswith(
            "No worker takes up what is due: is one running with --queues m"
        )
        assert behind(client, found.url) == found.count == 1

    def test_many_reasons_are_summed_up(self, user: User, client: Client, well: None) -> None:
        DeadLetter.objects.bulk_create(
            DeadLetter(
                queue=CREATED, event_id=f"{number}", reason=f"r{number}", body=b"", detail=""
            )
            for number in range(10)
        )
        found = waiting(user)
        assert len(found) == 9
        rest = found["dead letters in all, for 2 more causes"]
        assert behind(client, rest.url) == rest.count == 10
        DeadLetter.objects.filter(reason="r9").delete()
        assert "dead letters in all, for 1 more cause" in waiting(user)

    def test_refunds_that_were_not_asked_for_come_before_all_but_refunds(
        self, user: User, client: Client, well: None
    ) -> None:
        for queue, count in ((CREATED, 3), (CANCELLED, 2), (REFUNDS, 1), (REFUNDS, 2)):
            settle(queue, *(b"{" + b"x" * (count * 10 + n) for n in range(count)))
        DeadLetter.objects.create(queue="elsewhere", fingerprint="f", body=b"", reason="malformed")
        EmailFactory.create(state="failed")
        RefundFactory.create(needs_review=True)
        found = waiting(user)
        why = REASONS["malformed"].meaning
        assert list(found) == [
            "refund waits for a person",
            f"cancellations whose refund was not asked for: {why}",
            "e-mail waits for a person",
            f"events of new bookings, for their seats: {why}",
            f"events of cancellations, for their seats: {why}",
            f"dead letter of another queue: {why}",
        ]
        for each in found.values():
            assert behind(client, each.url) == each.count, each.what

    def test_what_a_queue_is_called_is_said_of_one_that_is_there(self) -> None:
        assert MEANINGS.keys() <= CONSUMERS.keys()

    def test_what_an_audit_found_is_said(self, user: User, client: Client, well: None) -> None:
        tour = TourFactory.create(capacity=20)
        Tour.objects.filter(pk=tour.pk).update(reserved_seats=2, available_seats=18)
        auditing.run()
        found = waiting(user)["findings of the newest audit"]
        assert found.count == 2  # the sums, and the history of the tour's seats
        page = client.get(found.url).content.decode()
        assert f"Tour {tour.pk} says that 2 seats are reserved" in page
        assert f"recount_seats {tour.pk}" in page
        assert f"/admin/catalog/tour/{tour.pk}/change/" in page

    def test_a_missing_audit_and_one_that_saw_not_all_are_said(
        self, user: User, well: None
    ) -> None:
        AuditRun.objects.update(finished_at=clock.now() - timedelta(hours=27))
        assert list(waiting(user)) == ["daily audit is missing"]
        AuditRun.objects.all().delete()
        assert list(waiting(user)) == ["daily audit is missing: there has been none yet"]
        auditing.run()
        run = AuditRun.objects.get()
        run.results["seats"]["incomplete"] = "the database was away"
        run.save()
        assert waiting(user)["audit could not look at all there is"].count == 1

    def test_a_queue_without_a_worker_is_named(self, user: User, well: None) -> None:
        past = clock.now() - heartbeats.longest_silence() - timedelta(seconds=1)
        Heartbeat.objects.filter(queue="payments").update(seen_at=past)
        Heartbeat.objects.filter(queue="catalog").delete()
        found = waiting(user)["task queues are served by no worker: catalog, payments"]
        assert (found.count, found.since) == (2, past)


class TestFigures:
    def test_each_figure_is_that_of_the_list_behind_it(
        self, user: User, client: Client, well: None
    ) -> None:
        a_day(2)
        for title in ("Bookings", "Cancellations", "Refunds", "E-mails"):
            shown = panel(user, title)
            for number in shown.numbers:
                assert behind(client, number.url) == number.value, (title, number.label)
            for series in shown.series:
                assert sum(series.values) > 0
                for value, url in zip(series.values, series.urls, strict=True):
                    assert behind(client, url) == value, (title, series.name)
        assert figures(panel(user, "Bookings")) == {"reserved": 3, "rejected": 1}

    def test_it_is_the_same_whether_counted_in_advance_or_now(
        self, user: User, client: Client, well: None
    ) -> None:
        a_day(2)
        ProcessedEvent.objects.update(processed_at=clock.now() - timedelta(minutes=50))
        before = panel(user, "Bookings")
        tallies.count_outcomes()
        assert Tally.objects.filter(word="reserved").exists()
        after = panel(user, "Bookings")
        assert (before.numbers, before.series) == (after.numbers, after.series)
        assert "has not done so" in before.note
        assert "Counted in advance up to" in after.note

    def test_a_beat_that_does_not_run_is_said(
        self, user: User, well: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a_day(2)
        tallies.count_outcomes()
        Tally.objects.update(minute=clock.now() - LONG_AGO)
        assert "has not done so" in panel(user, "Bookings").note
        monkeypatch.setattr(dashboard, "MOST_COUNTED_NOW", 2)
        assert panel(user, "Bookings").note.startswith("Not complete: beat has not counted since")

    def test_seats_are_those_of_the_tours(self, user: User, client: Client, well: None) -> None:
        free, full = TourFactory.create(capacity=20), TourFactory.create(capacity=2)
        over = TourFactory.create(capacity=4)
        settle(
            CREATED, created(free.pk, "A", 5), created(full.pk, "B", 2), created(over.pk, "C", 4)
        )
        over.refresh_from_db()
        over.capacity = 3
        over.save(update_fields=["capacity"])
        shown = panel(user, "Seats")
        assert figures(shown) == {
            "tours": 3, "seats free": 15, "tours sold out": 2, "tour overbooked": 1
        }  # fmt: skip
        assert [(row.name, *row.cells, row.share) for row in shown.rows] == [
            (over.name, 4, 0, 3, 100), (free.name, 5, 15, 20, 25), (full.name, 2, 0, 2, 100)
        ]  # fmt: skip
        assert [number.value for number in shown.numbers if "seats" not in number.label] == [
            behind(client, number.url) for number in shown.numbers if "seats" not in number.label
        ]
        assert client.get(shown.rows[0].url).context["original"] == over

    def test_duplicates_and_conflicts_add_up(self, user: User, client: Client, well: None) -> None:
        tallies.add({Counted("duplicates", CREATED): 2})
        tallies.add({Counted("conflicts", "tour"): 3})
        shown = panel(user, "Without effect")
        assert figures(shown) == {"duplicates suppressed": 2, "lock conflicts": 3}
        for number in shown.numbers:
            listed = client.get(number.url).context["cl"].result_list
            assert sum(row.count for row in listed) == number.value

    def test_the_outbox_and_the_workers_are_shown(
        self, user: User, client: Client, well: None
    ) -> None:
        settle(CREATED, created(TourFactory.create().pk, "A"))
        shown = figures(panel(user, "Announcements"))
        assert shown["groups that wait"] == OutboxRow.objects.count() > 1
        assert shown["announcements wait"] == outbox.backlog().announcements > 1
        OutboxRow.objects.exclude(pk=OutboxRow.objects.latest("pk").pk).delete()
        assert figures(panel(user, "Announcements"))["group that waits"] == 1
        [row] = panel(user, "Workers").rows
        assert row.name == "celery@here"
        assert behind(client, row.url) == len(topology.task_queues())

    def test_a_table_without_rows_says_what_there_is_none_of(
        self, user: User, client: Client, well: None
    ) -> None:
        Heartbeat.objects.all().delete()
        shown = text(client.get(reverse("admin:index")))
        assert "No worker was seen lately." in shown
        assert "No repeat came, and no write lost its race." in shown
        assert "There are no tours yet." in shown
        assert "None." not in shown

    def test_what_runs_out_of_the_day_is_left_out(self, user: User, well: None) -> None:
        a_day()
        ProcessedEvent.objects.update(processed_at=clock.now() - timedelta(hours=25))
        assert figures(panel(user, "Bookings")) == {"reserved": 0}


class TestQueues:
    def test_depths_are_those_of_the_broker(self, platform: Any, user: User, well: None) -> None:
        platform.publish([created(1, "A"), created(1, "B")])
        rows = {row.name: row for row in panel(user, "Queues").rows}
        assert rows[CREATED].cells[0] == 2
        assert set(rows) == {queue.name for queue in broker.queues()}
        if connection.vendor != "sqlite":  # these tests run with RabbitMQ then
            assert rows[CREATED].cells[1] == 0
            assert rows[CREATED].level == "bad"

    def test_a_queue_that_is_missing_is_said(self, platform: Any, user: User, well: None) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("the embedded broker has every queue")
        platform.delete_queue(CREATED)
        rows = {row.name: row for row in panel(user, "Queues").rows}
        assert rows[CREATED].cells[0] == "no such queue"
        assert rows[CANCELLED].cells[0] == 0

    def test_a_broker_that_is_away_is_said(
        self, user: User, monkeypatch: pytest.MonkeyPatch, well: None
    ) -> None:
        from celery import current_app

        monkeypatch.setattr(current_app.conf, "broker_write_url", "amqp://127.0.0.1:9//")
        with pytest.raises(NotKnown, match="the broker fails: "):
            Asked().depths()
        [queues] = [each for each in look(user).shown if each.title == "Queues"]
        assert queues.problem.startswith("the broker ")


class TestWhatItCosts:
    def test_the_number_of_statements_does_not_grow(self, user: User, well: None) -> None:
        a_day()
        with CaptureQueriesContext(connection) as few:
            look(user)
        a_day(5)
        with CaptureQueriesContext(connection) as more:
            look(user)
        assert len(more) == len(few) < 80


class TestFailingParts:
    @pytest.fixture(autouse=True)
    def _a_part_of_ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dashboard, "WAITS", dict(dashboard.WAITS))
        monkeypatch.setattr(dashboard, "SHOWS", dict(dashboard.SHOWS))

    def test_a_bug_in_one_part_is_said_and_the_others_are_shown(
        self, user: User, well: None
    ) -> None:
        def bug(_look: Any) -> Any:
            raise ZeroDivisionError

        dashboard.WAITS["Ours"] = Part("Ours", "catalog.view_tour", bug, place=0)
        dashboard.SHOWS["Ours"] = Part("Ours", "catalog.view_tour", bug, place=0)
        shown = look(user)
        assert shown.not_known == ["Ours: a bug, which the log tells of (ZeroDivisionError)"]
        assert not shown.calm
        problems = {each.title: each.problem for each in shown.shown if each.problem}
        assert list(problems) == ["Ours"]

    def test_a_statement_that_fails_harms_no_other_part(self, user: User, well: None) -> None:
        def wrong(_look: Any) -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM nowhere")

        dashboard.SHOWS["Ours"] = Part("Ours", "catalog.view_tour", wrong, place=-1)
        shown = look(user)
        assert shown.shown[0].problem.startswith("the database did not answer")
        assert not any(each.problem for each in shown.shown[1:])

    def test_a_statement_that_takes_too_long_is_ended(
        self, user: User, well: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite has no limit")

        def slow(_look: Any) -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(60)")

        monkeypatch.setattr(dashboard, "STATEMENT_MS", 50)
        dashboard.SHOWS["Ours"] = Part("Ours", "catalog.view_tour", slow, place=99)
        assert look(user).shown[-1].problem.endswith("(OperationalError)")

    def test_a_table_that_can_not_be_read_is_said(self, user: User, well: None) -> None:
        def away(execute: Any, sql: str, *rest: Any) -> Any:
            if "idempotency_store" in sql:
                raise OperationalError("away")
            return execute(sql, *rest)

        with connection.execute_wrapper(away):
            shown = look(user)
        assert [each.split(":")[0] for each in shown.not_known] == ["Refunds", "Overdue refunds"]


class TestRights:
    def test_each_part_is_for_those_who_may_view_it(self, well: None) -> None:
        a_day()
        shown = look(may_view("refund"))
        assert {each.title for each in shown.shown} == {"Refunds"}
        assert {each.what for each in shown.waiting} == {
            "refund waits for a person", "refund is overdue"
        }  # fmt: skip

    def test_who_may_view_nothing_is_told_so(self, well: None) -> None:
        a_day()
        shown = look(may_view())
        assert not shown.may_see
        assert not shown.calm
        assert [*shown.waiting, *shown.shown, *shown.not_known] == []


class TestThePage:
    def page(self, client: Client) -> str:
        return text(client.get(reverse("admin:index")))

    def test_it_says_that_nothing_waits_and_when(self, client: Client, well: None) -> None:
        said = self.page(client)
        assert "Nothing waits for a person, as of 20" in said
        assert "The last 24 hours" in said

    def test_what_waits_comes_first_with_its_age_and_a_link(
        self, client: Client, well: None
    ) -> None:
        RefundFactory.create(needs_review=True)
        Refund.objects.update(updated_at=clock.now() - LONG_AGO - timedelta(minutes=5))
        said = self.page(client)
        waits, _, rest = said.partition("The last 24 hours")
        assert '<strong class="count">1</strong> refund waits for a person</a>' in waits
        assert "for 3\xa0hours, 5\xa0minutes" in waits
        assert f'href="{dashboard.list_url(Refund, person="awaited")}"' in waits
        assert "refund waits" not in rest

    def test_a_chart_says_the_same_as_its_table(self, client: Client, well: None) -> None:
        a_day(2)
        said = self.page(client)
        charts = [json.loads(found) for found in re.findall(r'data-value="(.*?)" data-op', said)]
        assert [chart["datasets"][0]["label"] for chart in charts] == ["reserved", "released"]
        bookings = {each["label"]: sum(each["data"]) for each in charts[0]["datasets"]}
        assert bookings == {"reserved": 3, "rejected": 1}
        table = said.partition("Bookings by hour, as a table")[2].partition("</table>")[0]
        assert sum(map(int, re.findall(r'<td class="figure">(?:<a href=".*?">)?(\d+)', table))) == 4

    def test_foreign_text_hides_nothing(self, client: Client, well: None) -> None:
        TourFactory.create(name="<script>alert(1)</script>\u202e")
        heartbeats.store("catalog", "celery@\u200bhost")
        answer = client.get(reverse("admin:index")).content.decode()
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in answer
        assert "celery@\\u200bhost" in answer

    def test_it_asks_no_other_host_for_anything(self, client: Client, well: None) -> None:
        said = self.page(client)
        fetched = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]*)"', said)
        assert fetched
        assert [url for url in fetched if not url.startswith(("/", "static/"))] == []

    def test_who_has_no_role_is_told_so(self, well: None) -> None:
        a_day()
        client = Client()
        client.force_login(may_view())
        said = self.page(client)
        assert "Your account may see none of the platform's records yet" in said
        assert "Waits for a person" not in said

    def test_what_is_not_known_is_said(
        self, client: Client, well: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bug(_look: Any) -> Any:
            raise NotKnown("it is <asleep>")

        monkeypatch.setitem(dashboard.WAITS, "Ours", Part("Ours", "catalog.view_tour", bug, 0))
        monkeypatch.setitem(dashboard.SHOWS, "Ours", Part("Ours", "catalog.view_tour", bug, 0))
        said = self.page(client)
        assert "Not known: Ours: it is <asleep>." in said
        assert "Not known: it is <asleep>." in said
        assert "Nothing waits" not in said


class TestTheAuditsPages:
    def test_a_finding_leads_to_what_it_is_about(self, client: Client, user: User) -> None:
        tour = TourFactory.create(capacity=20)
        kept = {
            "seats": f"catalog.tour {tour.pk}",
            "events": "E \u202e",
            "outbox": "outbox",
            "gone": "nowhere.thing 3",
        }
        results = {
            name: {
                "found": 2,
                "incomplete": "",
                "first": [{"about": about, "words": "Off\u202e.", "mending": "Mend <it>."}],
            }
            for name, about in kept.items()
        }
        now = clock.now()
        run = AuditRun.objects.create(
            started_at=now, finished_at=now, found=8, results=results, figures={"waiting": 3}
        )
        answer = client.get(page(run))
        said = text(answer)
        assert page(tour) in said
        assert dashboard.list_url(OutboxRow, published="late") in said
        assert "How to mend it: Mend <it>." in said
        assert "Mend &lt;it&gt;." in answer.content.decode()
        assert "Off\\u202e." in said
        assert "… and 1 more of seats" in said
        assert client.get(where("E \\u202e")).status_code == 200
        assert listed(client, AuditRun, findings="some") == [run]
        assert listed(client, AuditRun, findings="none") == []


def test_what_is_charted_has_a_consumer() -> None:
    assert {parts.CREATED, parts.CANCELLED} <= CONSUMERS.keys()
