"""What staff decide about cancellation e-mails in the admin."""

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client

from booking_platform.operations import decisions
from booking_platform.operations.leased import as_seen
from notifications.models import CancellationEmail
from tests.integration.admin_pages import (
    LATER,
    PAST,
    SOON,
    before,
    choose,
    columns_of,
    confirm,
    fields,
    in_,
    kept,
    listed,
    listing,
    messages,
    moment,
    page,
    staff,
    text,
)
from tests.integration.email_rows import (
    change,
    failed,
    forgotten,
    pending,
    sending,
    sent,
    settled,
    uncertain,
)

pytestmark = pytest.mark.django_db

WHY = {"why": "the customer says that nothing came"}


class TestSendAgain:
    def test_it_is_taken_up_by_the_next_sweep_under_the_same_message_id(
        self, admin_client: Client
    ) -> None:
        row = uncertain(booking_id="BK-1", attempts=9)
        asked = choose(admin_client, "resend", row)
        shown = text(asked)
        assert "Send 1 cancellation e-mail again" in shown
        assert "who would then be told twice" in shown
        assert "It keeps its Message-ID" in shown
        assert row.recipient in shown
        assert "no whole answer in time" in shown
        assert CancellationEmail.objects.get().state == "uncertain"
        response = confirm(admin_client, asked, **WHY)
        assert "1 cancellation e-mail marked to be sent again: BK-1" in messages(response)
        was, row = row, CancellationEmail.objects.get()
        assert (row.state, row.attempts, row.message_id) == ("pending", 0, was.message_id)
        assert row.next_attempt_at is not None
        assert row.next_attempt_at <= in_(minutes=1)
        assert kept(row) == [("admin", f"marked to be sent again: {WHY['why']}")]

    def test_it_needs_a_confirmation_and_a_reason(self, admin_client: Client) -> None:
        row = uncertain()
        was = columns_of(row)
        again = confirm(admin_client, choose(admin_client, "resend", row), why="  ")
        assert "This field is required." in text(again)
        assert columns_of(row) == was
        confirm(admin_client, again, **WHY)
        assert columns_of(row) != was

    def test_what_waits_in_any_way_can_be_sent(self, admin_client: Client) -> None:
        rows = [uncertain(), failed(), pending(), pending(next_attempt_at=LATER)]
        asked = choose(admin_client, "resend", *rows)
        assert "4 cancellation e-mails marked" in messages(confirm(admin_client, asked, **WHY))
        assert listed(admin_client, CancellationEmail, due="now") == rows

    def test_it_tells_which_can_not_be_sent_and_why(self, admin_client: Client) -> None:
        rows = [
            sent(booking_id="a"),
            settled(booking_id="b"),
            forgotten(booking_id="c", forgotten_at=PAST),
            sending(booking_id="d", lease_until=SOON),
            sending(booking_id="e", lease_until=PAST),
            pending(booking_id="f", lease_until=SOON),
        ]
        were = [columns_of(row) for row in rows]
        told = messages(confirm(admin_client, choose(admin_client, "resend", *rows), **WHY))
        until = f"a worker has it, under way until {SOON:%H:%M:%S} UTC"
        assert told.split("\n") == [
            f"{booking}: not marked to be sent again: {why}"
            for booking, why in (
                ("a", "it was sent"),
                ("b", "it was settled by ada"),
                ("c", f"its address and text were forgotten at {moment(PAST)}"),
                ("d", until),
                ("e", "it may have been sent, and the next sweep looks into that"),
                ("f", until),
            )
        ]
        assert [columns_of(row) for row in rows] == were
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("action", ["resend", "settle"])
    def test_a_decision_is_about_what_was_shown(self, admin_client: Client, action: str) -> None:
        """A colleague sends it again while a person thinks, and it fails in another way."""
        row = failed(booking_id="BK-1")
        asked = choose(admin_client, action, row)
        change(row, state="uncertain", last_error="no answer")
        was = columns_of(row)
        told = messages(confirm(admin_client, asked, **WHY))
        assert re.fullmatch(r"BK-1: not marked [\w ]+: it changed since it was shown", told.strip())
        assert columns_of(row) == was
        assert not LogEntry.objects.exists()

    def test_without_what_was_shown_nothing_is_decided(self, admin_client: Client) -> None:
        row = uncertain()
        was = columns_of(row)
        for action in ("resend", "settle"):
            choose(admin_client, action, row, confirmed="yes", **WHY)
        assert columns_of(row) == was

    @pytest.mark.parametrize("action", ["resend", "settle"])
    def test_it_does_not_overwrite_what_comes_meanwhile(
        self, admin_client: Client, action: str
    ) -> None:
        row = uncertain()
        asked = choose(admin_client, action, row)
        with before("UPDATE", "cancellation_emails", lambda: change(row, state="sent")):
            response = confirm(admin_client, asked, **WHY)
        assert "it changed meanwhile: look at it again" in messages(response)
        row.refresh_from_db()
        assert (row.state, row.settled, row.next_attempt_at) == ("sent", False, None)
        assert not LogEntry.objects.exists()

    def test_it_takes_so_many_at_once_the_oldest_first(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "MOST_AT_ONCE", 2)
        rows = [uncertain(created_at=in_(days=-9 + number)) for number in range(3)]
        asked = choose(admin_client, "resend", rows[0], select_across="1", index="0")
        assert "3 are selected. These are the 2 oldest" in text(asked)
        confirm(admin_client, asked, **WHY)
        assert set(listed(admin_client, CancellationEmail, due="now")) == set(rows[:2])


class TestMarkSettled:
    def test_it_closes_with_a_reason_once_confirmed(self, admin_client: Client) -> None:
        row = uncertain(booking_id="BK-1")
        asked = choose(admin_client, "settle", row)
        assert "Mark 1 cancellation e-mail settled" in text(asked)
        assert not CancellationEmail.objects.get().settled
        response = confirm(admin_client, asked, why="told by phone")
        assert "1 cancellation e-mail marked settled: BK-1" in messages(response)
        row.refresh_from_db()
        assert (row.state, row.settled_by, row.settlement) == (
            "uncertain",
            "admin",
            "told by phone",
        )
        assert kept(row) == [("admin", "marked settled: told by phone")]
        assert "marked settled: told" in text(admin_client.get(page(row, "history")))

    def test_what_is_forgotten_can_still_be_settled(self, admin_client: Client) -> None:
        confirm(admin_client, choose(admin_client, "settle", forgotten()), **WHY)
        assert CancellationEmail.objects.get().settled

    def test_it_tells_which_were_not_settled_and_why(self, admin_client: Client) -> None:
        good, fine = failed(booking_id="good"), sent(booking_id="fine")
        held, waits = failed(booking_id="held"), pending(booking_id="waits")
        asked = choose(admin_client, "settle", good, fine, held, waits)
        CancellationEmail.objects.filter(pk=held.pk).update(lease_until=SOON)
        told = messages(confirm(admin_client, asked, **WHY))
        assert "1 cancellation e-mail marked settled: good" in told
        assert "fine: not marked settled: it does not wait for a person" in told
        assert "waits: not marked settled: it does not wait for a person" in told
        assert f"held: not marked settled: a worker has it, under way until {SOON:%H:%M}" in told
        assert [row.booking_id for row in CancellationEmail.objects.exclude(settled_at=None)] == [
            "good"
        ]
        assert LogEntry.objects.count() == 1


class TestAddresses:
    @pytest.mark.parametrize("action", ["resend", "settle"])
    def test_they_come_neither_into_the_history_nor_into_the_logs(
        self, admin_client: Client, action: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        row = uncertain(recipient="ann@example.com")
        told = messages(confirm(admin_client, choose(admin_client, action, row), **WHY))
        [entry] = LogEntry.objects.all()
        logs = "".join(capfd.readouterr())
        for kept_text in (told, entry.object_repr, entry.change_message, logs, str(row)):
            assert "ann@" not in kept_text

    def test_staff_are_asked_not_to_write_them_into_the_reason(self, admin_client: Client) -> None:
        row = uncertain()
        for action in ("resend", "settle"):
            assert "don't name the customer in it" in text(choose(admin_client, action, row))


class TestPermissions:
    def post_all(self, client: Client, row: CancellationEmail, *actions: str) -> None:
        for action in actions:
            seen = as_seen(CancellationEmail.objects.get())
            choose(client, action, row, confirmed="yes", seen=seen, **WHY)

    def test_nobody_without_one_sees_any(self) -> None:
        row, client = uncertain(), staff("view_tour")
        for url in (listing(CancellationEmail), page(row)):
            assert client.get(url).status_code == 403

    def test_who_may_see_sees_the_mail_and_decides_nothing(self) -> None:
        row, client = uncertain(), staff("view_cancellationemail")
        was = columns_of(row)
        for url in (listing(CancellationEmail), page(row)):
            assert 'name="action"' not in text(client.get(url))
        shown = text(client.get(page(row)))
        assert row.recipient in shown
        assert row.html_body in shown
        self.post_all(client, row, "resend", "settle")
        assert columns_of(row) == was
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize(("may", "may_not"), [("resend", "settle"), ("settle", "resend")])
    def test_each_decision_has_its_own(self, may: str, may_not: str) -> None:
        row = uncertain()
        client, was = staff("view_cancellationemail", f"{may}_cancellationemail"), columns_of(row)
        for url, pattern in (
            (page(row), r'name="action" value="(\w+)"'),
            (listing(CancellationEmail), r'<option value="(\w+)"'),
        ):
            assert re.findall(pattern, text(client.get(url))) == [may]
        self.post_all(client, row, may_not)
        assert columns_of(row) == was
        self.post_all(client, row, may)
        assert columns_of(row) != was
        assert len(kept(row)) == 1

    def test_a_get_changes_nothing(self, admin_client: Client) -> None:
        row = uncertain()
        was = columns_of(row)
        for action in ("resend", "settle"):
            query: dict[str, Any] = {
                "action": action,
                "_selected_action": row.pk,
                "confirmed": "1",
                **WHY,
            }
            admin_client.get(listing(CancellationEmail), query | {"seen": as_seen(row)})
        assert columns_of(row) == was

    def test_the_forms_work_in_a_browser_and_not_from_a_strangers_page(self) -> None:
        row, client = uncertain(), Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("admin"))
        was = columns_of(row)
        for action in ("resend", "settle"):
            given = {"confirmed": "yes", "seen": as_seen(row)} | WHY
            assert choose(client, action, row, **given).status_code == 403
        assert columns_of(row) == was
        buttons = fields(text(client.get(page(row))), 'class="resolutions ')
        asked = client.post(listing(CancellationEmail), buttons | {"action": "resend"})
        confirm(client, asked, **WHY)
        assert CancellationEmail.objects.get().state == "pending"
