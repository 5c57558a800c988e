"""The store held against a Stripe of our own: what differs is said, and nothing else is."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import leases
from payments import reconciliation, tasks
from payments.answers import StripeRefund
from payments.keys import booking_key, idempotency_key
from payments.models import Refund
from payments.reconciliation import CHUNK, Difference
from tests.factories import RefundFactory, past
from tests.integration.comparing import (
    Status,
    all_columns,
    change,
    in_the_dashboard,
    kinds,
    refunded,
    run,
    sweep,
    under_our_key,
)

DAY = 24 * 60 * 60  # seconds


NOT_RECORDED: dict[str, Any] = {
    "stripe_refund_id": None,
    "stripe_status": "",
    "response_payload": None,
}
FAILED = {**NOT_RECORDED, "status": Status.FAILED, "needs_review": True}
IN_PROGRESS = {**NOT_RECORDED, "status": Status.IN_PROGRESS}


@pytest.mark.django_db(transaction=True)
class TestAgreement:
    def test_it_finds_nothing_where_nothing_differs(self, stripe: Sandbox) -> None:
        for number in range(3):
            refunded(stripe, f"BK-{number}")
        before = all_columns()
        status, said = run("--since", "1d")
        assert status == 0
        assert said.startswith("0 differences since ")
        assert len(said.splitlines()) == 1
        assert all_columns() == before

    def test_it_finds_nothing_in_nothing(self, stripe: Sandbox) -> None:
        assert run()[0] == 0

    def test_it_ignores_refunds_that_have_nothing_to_do_with_us(self, stripe: Sandbox) -> None:
        refunded(stripe)
        other = stripe.payment(amount=50_000, currency="eur")
        in_the_dashboard(other)
        in_the_dashboard(other, idempotency_key="another-shop:1", booking_id="BK-1")
        assert run()[0] == 0

    def test_two_bookings_of_one_payment_agree(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        second = RefundFactory.create(payment_id=row.payment_id, next_attempt_at=past())
        tasks.attempt(second.pk)
        assert run()[0] == 0

    def test_the_steps_and_payments_of_a_booking_agree(self, stripe: Sandbox) -> None:
        for payment in [stripe.payment(amount=50_000, currency="eur") for _ in range(2)]:
            for step in (2, 0):
                row = RefundFactory.create(
                    booking_id="BK-1", payment_id=payment, seats_remaining=step,
                    next_attempt_at=past(),
                )  # fmt: skip
                tasks.attempt(row.pk)
        assert len(stripe.refunds) == 4
        assert run()[0] == 0

    @pytest.mark.parametrize("charge", ["ch_sandbox_50000_eur", "py_sandbox_50000_eur", ""])
    def test_a_refund_of_a_charge_agrees(self, stripe: Sandbox, charge: str) -> None:
        payment = stripe.payment(amount=50_000, currency="eur")
        charge = charge or stripe.account.payments[payment].charge
        row = RefundFactory.create(payment_id=charge, next_attempt_at=past())
        tasks.attempt(row.pk)
        assert len(stripe.refunds) == 1
        assert run()[0] == 0

    def test_a_refund_that_failed_for_both_agrees(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        stripe.change_refund(str(row.stripe_refund_id), status="failed")
        leases.mark_due(Refund.objects.all())
        sweep()
        assert run()[0] == 0


@pytest.mark.django_db(transaction=True)
class TestDifferences:
    def only_line(self, *parts: str) -> str:
        """Compare without writing; return the only line, which names all of the parts."""
        before = all_columns()
        status, said = run("--dry-run")
        assert (status, len(kinds(said))) == (1, 1), said
        assert "1 difference since " in said
        assert all_columns() == before
        line = said.splitlines()[0]
        for part in parts:
            assert part in line
        return line

    def test_it_finds_a_refund_that_stripe_does_not_have(self, stripe: Sandbox) -> None:
        row = refunded(stripe, stripe_refund_id="re_gone")
        stripe.reset()
        line = self.only_line("'BK-1'", "150.00 EUR", repr(row.payment_id), "re_gone")
        assert line.startswith("missing: ")
        run()
        sweep()
        change(row)
        assert row.needs_review
        assert "re_gone" in row.last_error

    @pytest.mark.parametrize(
        ("columns", "words"),
        [
            (IN_PROGRESS | {"first_sent_at": timezone.now()}, "is in progress"),
            (IN_PROGRESS | {"first_sent_at": None}, "is in progress"),
            (IN_PROGRESS | {"first_sent_at": None, "next_attempt_at": timezone.now()}, "is in progress"),
            (FAILED, "is failed"),
            (FAILED | {"needs_review": False, "settled_at": timezone.now(), "settled_by": "anna"},
             "settled by 'anna'"),
        ],
    )  # fmt: skip
    def test_it_finds_a_refund_that_was_not_recorded(
        self, stripe: Sandbox, columns: dict[str, Any], words: str
    ) -> None:
        row = refunded(stripe)
        refund_id = str(row.stripe_refund_id)
        change(row, **columns)
        line = self.only_line("'BK-1'", refund_id, "150.00 EUR", repr(row.payment_id), words)
        assert line.startswith("extra: ")
        stripe.advance(2 * DAY)  # the key is forgotten: to send would be to refund again
        assert "1 refund of the store marked due" in run()[1]
        sweep()
        change(row)
        assert (row.status, row.stripe_refund_id) == (Status.COMPLETED, refund_id)
        assert len(stripe.refunds) == 1
        assert row.settled == ("settled_at" in columns)

    def test_it_finds_a_refund_of_ours_that_no_row_is_of(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        Refund.objects.all().delete()
        line = self.only_line("extra: ", "'BK-1'", str(row.stripe_refund_id), row.payment_id)
        assert "no such refund" in line
        assert "0 refunds of the store marked due" in run()[1]

    def test_it_finds_a_second_refund_of_a_booking(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        second = under_our_key(row)
        self.only_line(
            "extra: ", "'BK-1'", second.refund_id, "10.00 EUR", str(row.stripe_refund_id)
        )
        self.reaches_a_person(row, second)

    def test_it_finds_a_second_refund_of_another_payment(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        second = under_our_key(row, stripe.payment(amount=50_000, currency="eur"))
        self.only_line("extra: ", "'BK-1'", second.refund_id, repr(second.payment_id))
        self.reaches_a_person(row, second)

    def test_it_finds_a_step_that_the_store_has_forgotten(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        key = idempotency_key("BK-1", row.payment_id, 2)
        other = in_the_dashboard(row.payment_id, idempotency_key=key, booking_id="BK-1")
        self.only_line("extra: ", "'BK-1'", other.refund_id, "no such refund")
        self.reaches_a_person(row, other)

    def test_it_finds_what_the_version_before_has_made_of_another_payment(
        self, stripe: Sandbox
    ) -> None:
        row = refunded(stripe)
        payment = stripe.payment(amount=50_000, currency="eur")
        key = booking_key("BK-1")
        other = in_the_dashboard(payment, idempotency_key=key, booking_id="BK-1")
        self.only_line("extra: ", "'BK-1'", other.refund_id, repr(payment))
        self.reaches_a_person(row, other)

    def test_it_finds_a_refund_made_in_the_dashboard(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        other = in_the_dashboard(row.payment_id)
        self.only_line("extra: ", "'BK-1'", other.refund_id, "10.00 EUR", "did not ask for")
        self.reaches_a_person(row, other)

    def test_it_finds_a_refund_of_our_payment_for_a_booking_unknown(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        key = idempotency_key("BK-2", row.payment_id)
        other = in_the_dashboard(row.payment_id, idempotency_key=key, booking_id="BK-2")
        self.only_line("extra: ", "'BK-2'", other.refund_id, "no such refund")
        self.reaches_a_person(row, other)

    def reaches_a_person(self, row: Refund, other: StripeRefund) -> None:
        """Compare for real, twice: the row waits for a person, who is told why, once."""
        change(row, last_error="as before", needs_review=True)
        for _ in range(2):
            status, said = run()
            assert status == 1
            assert "0 refunds of the store marked due" in said
            assert "1 refund put up for a person" in said
            updated = row.updated_at
            change(row)
        assert row.updated_at == updated  # it was said already
        assert row.needs_review
        assert row.last_error.count(other.refund_id) == 1
        assert row.last_error.endswith("as before")
        assert row.next_attempt_at is None

    @pytest.mark.parametrize("issue", ["", ":2"])
    def test_it_finds_what_was_not_recorded_of_another_payment(
        self, stripe: Sandbox, issue: str
    ) -> None:
        row = RefundFactory.create(
            booking_id="BK-1",
            payment_id=stripe.payment(amount=50_000, currency="eur"),
            first_sent_at=timezone.now(),
        )
        payment = stripe.payment(amount=50_000, currency="eur")
        key = row.idempotency_key + issue
        other = in_the_dashboard(payment, idempotency_key=key)
        self.only_line("extra: ", "'BK-1'", other.refund_id, repr(payment), "is in progress")
        assert "1 refund put up for a person" in run()[1]
        leases.mark_due(Refund.objects.all())
        sweep()  # an attempt looks for refunds of the row's payment only, and would send
        change(row)
        assert row.needs_review
        assert other.refund_id in row.last_error
        assert len(stripe.refunds) == 1

    def test_it_knows_a_refund_by_its_id_alone(self, stripe: Sandbox) -> None:
        other = in_the_dashboard(stripe.payment(amount=50_000, currency="eur"))
        recorded = {"status": Status.COMPLETED, "stripe_refund_id": other.refund_id}
        RefundFactory.create(booking_id="BK-1", payment_id="pi_other", **recorded)
        said = run("--dry-run")[1]
        assert f"refund {other.refund_id} (10.00 EUR of payment 'pi_other') is of payment" in said

    def test_it_leaves_alone_what_changed_since_it_was_compared(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        in_the_dashboard(row.payment_id)
        found = [
            each
            for each in reconciliation.findings(timezone.now() - timedelta(days=1))
            if isinstance(each, Difference)
        ]
        assert row.try_again()
        before = all_columns()
        assert reconciliation.mend(found) == (0, 0)
        assert all_columns() == before

    def test_what_a_person_settled_stays_settled(self, stripe: Sandbox) -> None:
        row = refunded(stripe, settled_at=timezone.now(), settled_by="anna")
        other = in_the_dashboard(row.payment_id)
        self.only_line("extra: ", other.refund_id, "settled by 'anna'")
        before = all_columns()
        assert "0 refunds put up for a person" in run()[1]
        assert all_columns() == before

    @pytest.mark.parametrize(
        ("columns", "kind", "words"),
        [
            ({"amount_minor": 14_000}, "other amount", "150.00 EUR at Stripe, 140.00 EUR in the"),
            ({"currency": "usd"}, "other amount", "150.00 EUR at Stripe, 150.00 USD in the"),
            ({"payment_id": "pi_other"}, "other payment", "of payment 'pi_other' in the store"),
            ({"stripe_status": "pending"}, "other status", "succeeded at Stripe, pending in the"),
        ],
    )
    def test_it_finds_what_differs_in_a_refund(
        self, stripe: Sandbox, columns: dict[str, Any], kind: str, words: str
    ) -> None:
        row = refunded(stripe, **columns)
        line = self.only_line("'BK-1'", str(row.stripe_refund_id), "150.00 EUR", words)
        assert line.startswith(f"{kind}: ")
        assert "1 refund of the store marked due" in run()[1]
        sweep()
        change(row)
        assert (row.stripe_status, row.needs_review) == ("succeeded", kind != "other status")

    def test_it_finds_a_refund_that_failed_unheard(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        stripe.change_refund(str(row.stripe_refund_id), status="failed")
        self.only_line("other status: ", "failed at Stripe, succeeded in the store")
        run()
        sweep()
        change(row)
        assert (row.stripe_status, row.needs_review) == ("failed", True)

    def test_each_thing_that_differs_has_its_line(self, stripe: Sandbox) -> None:
        refunded(stripe, "BK-1", amount_minor=1, stripe_status="pending")
        refunded(stripe, "BK-2", stripe_refund_id="re_gone")
        status, said = run()
        # The refund of BK-2 is there, under another id than the store has.
        assert sorted(kinds(said)) == ["extra", "missing", "other amount", "other status"]
        assert (status, "4 differences since" in said) == (1, True)


@pytest.mark.django_db(transaction=True)
class TestUnderWay:
    @pytest.mark.parametrize(
        "columns",
        [
            {"lease_until": timezone.now() + timedelta(hours=1), "lease_token": uuid4()},
            {"lease_until": timezone.now() - timedelta(minutes=1), "lease_token": uuid4()},
            {"next_attempt_at": timezone.now() - timedelta(seconds=1)},
            {"next_attempt_at": timezone.now() + timedelta(minutes=10)},  # after a timeout
        ],
    )
    @pytest.mark.parametrize("what", ["sent", "completed", "gone", "dashboard"])
    def test_it_leaves_out_what_a_worker_has_in_hand(
        self, stripe: Sandbox, columns: dict[str, Any], what: str
    ) -> None:
        row = refunded(stripe)
        if what == "sent":
            change(row, **IN_PROGRESS)
        elif what == "completed":
            change(row, stripe_status="pending")
        elif what == "gone":
            change(row, stripe_refund_id="re_gone")
        else:
            in_the_dashboard(row.payment_id)
        change(row, **columns)
        before = all_columns()
        status, said = run()
        assert (status, kinds(said)) == (0, [])
        assert "1 refund left out" in said
        assert "is a worker" not in said
        assert all_columns() == before

    def test_it_leaves_out_what_has_not_been_sent(self, stripe: Sandbox) -> None:
        RefundFactory.create(next_attempt_at=past())
        status, said = run()
        assert (status, len(said.splitlines())) == (0, 1)

    def test_it_asks_for_the_worker_where_nobody_takes_up_what_is_due(
        self, stripe: Sandbox
    ) -> None:
        refunded(stripe, stripe_status="x", next_attempt_at=past() - timedelta(hours=2))
        assert "is a worker serving the queue payments" in run()[1]

    def test_what_is_planned_for_much_later_is_compared(self, stripe: Sandbox) -> None:
        refunded(stripe, stripe_status="x", next_attempt_at=past() + timedelta(days=1))
        assert run()[0] == 1

    def test_a_refund_recorded_after_the_list_is_not_missing(self, stripe: Sandbox) -> None:
        in_the_dashboard(refunded(stripe).payment_id)
        found = reconciliation.findings(timezone.now() - timedelta(days=1))
        assert isinstance(next(found), Difference)
        late = refunded(stripe, "BK-2")
        assert list(found) == []
        assert stripe.requests[-1].path.endswith(str(late.stripe_refund_id))

    def test_rows_that_stripe_does_not_list_are_read_in_pages(
        self, stripe: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [refunded(stripe, f"BK-{n}", stripe_refund_id=f"re_gone{n}") for n in range(7)]
        stripe.reset()
        monkeypatch.setattr(reconciliation, "CHUNK", 3)
        with CaptureQueriesContext(connection) as queries:
            found = list(reconciliation.findings(timezone.now() - timedelta(days=1)))
        assert [finding.row for finding in found] == rows
        assert len([query for query in queries if "LIMIT 3" in query["sql"]]) == 4

    def test_a_status_stored_after_the_list_is_no_difference(self, stripe: Sandbox) -> None:
        stale = refunded(stripe)  # the oldest: in the second chunk
        refunded(stripe, "BK-3", stripe_status="pending")
        row = refunded(stripe, "BK-2")
        for number in range(CHUNK):
            in_the_dashboard(row.payment_id, 1 + number % 2)
        found = reconciliation.findings(timezone.now() - timedelta(days=1))
        assert isinstance(next(found), Difference)
        stripe.change_refund(str(stale.stripe_refund_id), status="failed")
        leases.mark_due(Refund.objects.filter(pk=stale.pk))
        sweep()
        rest = [finding for finding in found if isinstance(finding, Difference)]
        assert len(rest) == CHUNK - 1 + 1
        assert {finding.row and finding.row.booking_id for finding in rest} == {"BK-2", "BK-3"}


@pytest.mark.django_db(transaction=True)
class TestWindow:
    """Here the window opens in an hour: what is made now is before it, since no clock goes back."""

    def found(self, stripe: Sandbox, *, opens: timedelta = timedelta(hours=1)) -> list[str]:
        found = reconciliation.findings(timezone.now() + opens)
        return [finding.kind for finding in found if isinstance(finding, Difference)]

    def test_an_old_refund_of_a_new_row_is_asked_for(self, stripe: Sandbox) -> None:
        inside = timezone.now() + timedelta(hours=2)
        refunded(stripe, created_at=inside)
        assert self.found(stripe) == []
        refunded(stripe, "BK-2", created_at=inside, stripe_status="pending")
        assert self.found(stripe) == ["other status"]

    @pytest.mark.parametrize("columns", [{}, {"stripe_status": "pending"}])
    def test_a_new_refund_of_an_old_row_is_compared(
        self, stripe: Sandbox, columns: dict[str, Any]
    ) -> None:
        stripe.advance(2 * 60 * 60)
        refunded(stripe, **columns)
        assert self.found(stripe) == ["other status"] * len(columns)

    def test_a_new_refund_of_the_payment_of_an_old_row_is_found(self, stripe: Sandbox) -> None:
        row = refunded(stripe)
        stripe.advance(2 * 60 * 60)
        under_our_key(row)
        in_the_dashboard(row.payment_id)
        assert self.found(stripe) == ["extra", "extra"]

    def test_what_is_old_on_both_sides_is_left_alone(self, stripe: Sandbox) -> None:
        refunded(stripe, stripe_status="pending")
        assert self.found(stripe) == []
        assert self.found(stripe, opens=-timedelta(hours=1)) == ["other status"]

    def test_the_first_moment_is_in_the_window(self, stripe: Sandbox) -> None:
        row = refunded(stripe, stripe_refund_id="re_gone")
        stripe.reset()
        assert run("--since", row.created_at.isoformat(), "--dry-run")[0] == 1
        later = row.created_at + timedelta(microseconds=1)
        assert run("--since", later.isoformat(), "--dry-run")[0] == 0

    def test_it_reads_every_page(self, stripe: Sandbox) -> None:
        payment = stripe.payment(amount=50_000, currency="eur")
        refunded(stripe, "BK-oldest", stripe_status="pending")
        for number in range(120):
            booking = f"BK-{number}"
            key = idempotency_key(booking, payment)
            noted = {"idempotency_key": key, "booking_id": booking}
            made = in_the_dashboard(payment, 100, **noted)
            RefundFactory.create(
                booking_id=booking, payment_id=payment, amount_minor=100,
                status=Status.COMPLETED, stripe_refund_id=made.refund_id,
                stripe_status="succeeded" if number else "pending",
            )  # fmt: skip
        said = run("--dry-run")[1]
        assert kinds(said) == ["other status", "other status"]
        assert "'BK-0'" in said
        assert "'BK-oldest'" in said
