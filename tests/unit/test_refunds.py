"""The state machine of refunds, without a database or a Stripe: what is known, to what is done."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.answers import OtherParameters, StripeRefund, StripeRefusal, Unknown
from payments.models import Refund, idempotency_key
from payments.rules import Evidence, Plan, judge, plan

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
Status = Refund.Status
KEY = idempotency_key("BK-1")


def row(**columns: Any) -> Refund:
    """Return a refund of 150 euros that was sent a minute ago and not heard of since."""
    known: dict[str, Any] = {
        "booking_id": "BK-1",
        "payment_id": "pi_1",
        "amount_minor": 15_000,
        "currency": "eur",
        "idempotency_key": KEY,
        "attempts": 2,
        "created_at": NOW - timedelta(hours=1),
        "first_sent_at": NOW - timedelta(minutes=1),
    }
    return Refund(**{**known, **columns})


def at_stripe(**fields: Any) -> StripeRefund:
    known = {
        "refund_id": "re_1",
        "status": "succeeded",
        "amount_minor": 15_000,
        "currency": "eur",
        "payment_id": "pi_1",
        "key": KEY,
        "created_at": NOW,
        "record": {},
    }
    return StripeRefund(**{**known, **fields})


UNKNOWN = Unknown("no answer from Stripe: ReadTimeout")
SAVED_ERROR = Unknown("Stripe answered 500", repeats=True)
REFUSED = StripeRefusal("charge_already_refunded", "Charge ch_1 has already been refunded.")
FOREIGN = at_stripe(refund_id="re_9", key="", amount_minor=100)


class TestPlan:
    @pytest.mark.parametrize(
        ("columns", "expected"),
        [
            ({"first_sent_at": None, "attempts": 1, "created_at": NOW}, Plan.SEND),
            ({}, Plan.LOOK_AND_SEND),
            ({"first_sent_at": NOW - timedelta(hours=22, minutes=59)}, Plan.LOOK_AND_SEND),
            ({"first_sent_at": NOW - timedelta(hours=23)}, Plan.LOOK),
            ({"first_sent_at": NOW - timedelta(days=3)}, Plan.LOOK),
            ({"attempts": 150}, Plan.LOOK_AND_SEND),
            ({"attempts": 151}, Plan.LOOK),
            ({"needs_review": True}, Plan.LOOK),
            ({"needs_review": True, "first_sent_at": None}, Plan.LOOK),
            ({"settled_at": NOW}, Plan.LOOK),
            ({"settled_at": NOW, "first_sent_at": None}, Plan.LOOK),
            ({"status": Status.FAILED, "needs_review": True}, Plan.LOOK),
            ({"status": Status.FAILED, "first_sent_at": None}, Plan.LOOK),
            ({"status": Status.COMPLETED, "stripe_refund_id": "re_1"}, Plan.LOOK),
            # Never sent, but the store may have been restored, or somebody may have helped out.
            ({"first_sent_at": None, "attempts": 1}, Plan.LOOK_AND_SEND),
            ({"first_sent_at": None, "attempts": 2, "created_at": NOW}, Plan.LOOK_AND_SEND),
            (
                {"first_sent_at": None, "attempts": 1, "created_at": NOW}
                | {"idempotency_key": f"{KEY}:2"},
                Plan.LOOK_AND_SEND,
            ),
        ],
    )
    def test_it_sends_only_while_that_is_safe(
        self, columns: dict[str, Any], expected: Plan
    ) -> None:
        assert plan(row(**columns), NOW) is expected


class TestJudge:
    @pytest.mark.parametrize(
        ("said", "status", "review", "again"),
        [
            # Sent, and answered with a refund.
            (Evidence(at_stripe()), Status.COMPLETED, False, False),
            (Evidence(at_stripe(status="pending")), Status.COMPLETED, False, False),
            (Evidence(at_stripe(status="failed")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="canceled")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="requires_action")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="on_hold")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(key=idempotency_key("BK-2"))), Status.COMPLETED, True, False),
            (Evidence(at_stripe(key="")), Status.COMPLETED, False, False),
            (Evidence(at_stripe(amount_minor=1)), Status.COMPLETED, True, False),
            (Evidence(at_stripe(currency="usd")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(payment_id="pi_2")), Status.COMPLETED, True, False),
            # Sent, and nothing proven.
            (Evidence(UNKNOWN), None, False, True),
            (Evidence(SAVED_ERROR, UNKNOWN), None, False, True),
            (Evidence(SAVED_ERROR, []), None, True, False),
            (Evidence(SAVED_ERROR, [at_stripe()]), Status.COMPLETED, False, False),
            # Sent, and refused: a verdict only with the list.
            (Evidence(REFUSED, []), Status.FAILED, True, False),
            (Evidence(REFUSED, [FOREIGN]), Status.FAILED, True, False),
            (Evidence(REFUSED, [at_stripe(), FOREIGN]), Status.COMPLETED, False, False),
            (Evidence(REFUSED, UNKNOWN), None, False, True),
            (Evidence(REFUSED, None), None, False, True),
            (Evidence(OtherParameters("Keys …")), None, True, False),
            # Not sent: only looked.
            (Evidence(None, [at_stripe()]), Status.COMPLETED, False, False),
            (Evidence(None, UNKNOWN), None, False, True),
            (Evidence(None, []), None, True, False),
            (Evidence(None, [at_stripe(), at_stripe(refund_id="re_2")]), None, True, False),
        ],
    )
    def test_it_decides_by_what_is_proven(
        self, said: Evidence, status: str | None, review: bool, again: bool
    ) -> None:
        conclusion = judge(row(), said, NOW)
        assert conclusion.columns.get("status") == status
        assert conclusion.columns.get("needs_review", False) is review
        assert conclusion.again is again
        assert bool(conclusion.columns.get("last_error")) is (review or again)

    def test_it_completes_with_what_stripe_has(self) -> None:
        columns = judge(row(), Evidence(at_stripe(record={"id": "re_1"})), NOW).columns
        assert columns["stripe_refund_id"] == "re_1"
        assert columns["stripe_status"] == "succeeded"
        assert columns["response_payload"] == {"id": "re_1"}

    def test_it_takes_a_refund_under_another_issue_of_the_key_for_the_bookings(self) -> None:
        reissued = row(idempotency_key=idempotency_key("BK-1", issue=2))
        assert judge(reissued, Evidence(None, [at_stripe()]), NOW).columns["status"] == "completed"
        both = [at_stripe(), at_stripe(refund_id="re_2", key=f"{KEY}:2")]
        conclusion = judge(reissued, Evidence(None, both), NOW)
        assert conclusion.columns["needs_review"]
        assert "re_1, re_2" in conclusion.columns["last_error"]

    def test_it_leaves_alone_what_waits_for_a_person_while_nothing_is_there(self) -> None:
        for columns in (
            {"needs_review": True, "last_error": "why"},
            {"status": Status.FAILED, "needs_review": True, "last_error": "why"},
            {"settled_at": NOW},
        ):
            assert judge(row(**columns), Evidence(None, []), NOW).columns == {}
            later = judge(row(**columns), Evidence(None, UNKNOWN), NOW)
            assert later.columns == {}
            assert later.again

    def test_it_completes_a_failed_refund_that_turns_up(self) -> None:
        failed = row(status=Status.FAILED, needs_review=True)
        columns = judge(failed, Evidence(None, [at_stripe()]), NOW).columns
        assert (columns["status"], columns["needs_review"]) == (Status.COMPLETED, False)

    @pytest.mark.parametrize("age", [timedelta(hours=24), timedelta(days=9)])
    def test_it_gives_up_asking_after_a_day(self, age: timedelta) -> None:
        conclusion = judge(row(first_sent_at=NOW - age), Evidence(None, UNKNOWN), NOW)
        assert conclusion.columns["needs_review"]
        assert not conclusion.again
        assert "ReadTimeout" in conclusion.columns["last_error"]

    def test_it_gives_up_after_too_many_attempts(self) -> None:
        assert judge(row(attempts=151), Evidence(None, UNKNOWN), NOW).columns["needs_review"]

    def test_it_asks_for_a_person_again_where_a_settled_refund_moves(self) -> None:
        settled = row(settled_at=NOW, settled_by="ann")
        columns = judge(settled, Evidence(None, [at_stripe()]), NOW).columns
        assert columns["needs_review"]
        assert "settled before" in columns["last_error"]

    def test_it_does_not_ask_again_for_what_a_person_has_settled(self) -> None:
        settled = row(settled_at=NOW, stripe_refund_id="re_1", stripe_status="failed")
        same = Evidence(None, [at_stripe(status="failed")])
        assert "needs_review" not in judge(settled, same, NOW).columns

    OURS = st.builds(
        at_stripe,
        refund_id=st.sampled_from(["re_1", "re_2", "re_3"]),
        status=st.sampled_from(Refund.StripeStatus.values),
        key=st.sampled_from([KEY, f"{KEY}:2", "", "booking-platform:refund:other"]),
        amount_minor=st.sampled_from([15_000, 1]),
    )
    SENT = st.one_of(
        st.none(), OURS, st.sampled_from([UNKNOWN, SAVED_ERROR, REFUSED, OtherParameters("x")])
    )
    LISTED = st.one_of(st.none(), st.just(UNKNOWN), st.lists(OURS, max_size=3))

    @given(sent=SENT, listed=LISTED, hours=st.integers(0, 30), attempts=st.integers(1, 160))
    def test_whatever_stripe_says_a_refund_is_never_left_to_nobody(
        self, sent: Any, listed: Any, hours: int, attempts: int
    ) -> None:
        refund = row(first_sent_at=NOW - timedelta(hours=hours), attempts=attempts)
        conclusion = judge(refund, Evidence(sent, listed), NOW)
        columns = conclusion.columns
        done = columns.get("status") == Status.COMPLETED
        review = columns.get("needs_review", False)
        assert done or review or conclusion.again
        assert not (review and conclusion.again)
        if columns.get("status") == Status.FAILED:
            assert isinstance(sent, StripeRefusal)
            assert isinstance(listed, list)
            assert not any(one.key.startswith(KEY) for one in listed)


class TestJudgeOfWhatIsKnown:
    """A completed refund that is looked at again."""

    @staticmethod
    def known(**columns: Any) -> Refund:
        facts = {"stripe_refund_id": "re_1", "stripe_status": "succeeded"}
        return row(**{"status": Status.COMPLETED, **facts, **columns})

    def test_it_stores_what_stripe_says_now(self) -> None:
        moved = Evidence(None, [at_stripe(status="failed")])
        columns = judge(self.known(), moved, NOW).columns
        assert columns["stripe_status"] == "failed"
        assert columns["needs_review"]

    def test_without_news_a_persons_matter_stays_as_it_is(self) -> None:
        waiting = self.known(needs_review=True, last_error="found by reconciliation")
        columns = judge(waiting, Evidence(None, [at_stripe()]), NOW).columns
        assert "needs_review" not in columns
        assert "last_error" not in columns

    def test_it_asks_later_where_stripe_does_not_answer(self) -> None:
        conclusion = judge(self.known(), Evidence(None, UNKNOWN), NOW)
        assert conclusion.again
        assert "status" not in conclusion.columns

    @pytest.mark.parametrize("listed", [[], [FOREIGN]])
    def test_it_asks_for_a_person_where_stripe_does_not_list_it(self, listed: Any) -> None:
        conclusion = judge(self.known(), Evidence(None, listed), NOW)
        assert conclusion.columns["needs_review"]
        assert "re_1" in conclusion.columns["last_error"]
        assert "status" not in conclusion.columns

    def test_it_asks_for_a_person_where_stripe_has_another(self) -> None:
        other = Evidence(None, [at_stripe(refund_id="re_2")])
        columns = judge(self.known(), other, NOW).columns
        assert columns["needs_review"]
        assert "re_2 now instead of re_1" in columns["last_error"]


class TestIdempotencyKey:
    def test_it_is_the_bookings_alone(self) -> None:
        assert idempotency_key("BK-1") == idempotency_key("BK-1") != idempotency_key("BK-2")
        assert idempotency_key("BK-1", issue=2) == f"{KEY}:2"

    @given(booking=st.text(min_size=1, max_size=255))
    def test_it_is_a_hash_and_says_nothing_of_the_booking(self, booking: str) -> None:
        key = idempotency_key(booking)
        assert re.fullmatch("booking-platform:refund:[0-9a-f]{64}", key)
