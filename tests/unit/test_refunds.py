"""The state machine of refunds, without a database or a Stripe: what is known, to what is done."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.answers import NoSuchPayment, OtherParameters, StripeRefusal, Unknown
from payments.examining import Beside, Terms
from payments.keys import booking_key, idempotency_key
from payments.models import Refund
from payments.rules import Evidence, after_look, judge, may_send
from tests.unit.refunds import KEY, NOW, at_stripe, new, paid, row

Status = Refund.Status


UNKNOWN = Unknown("no answer from Stripe: ReadTimeout")
SAVED_ERROR = Unknown("Stripe answered 500", repeats=True)
REFUSED = StripeRefusal("charge_already_refunded", "Charge ch_1 has already been refunded.")
FOREIGN = at_stripe(refund_id="re_9", key="", amount_minor=100)


class TestMaySend:
    @pytest.mark.parametrize(
        ("columns", "expected"),
        [
            ({"first_sent_at": None, "attempts": 1, "created_at": NOW}, True),
            ({}, True),
            ({"first_sent_at": NOW - timedelta(hours=22, minutes=59)}, True),
            ({"first_sent_at": NOW - timedelta(hours=23)}, False),
            ({"first_sent_at": NOW - timedelta(days=3)}, False),
            ({"attempts": 150}, True),
            ({"attempts": 151}, False),
            ({"needs_review": True}, False),
            ({"needs_review": True, "first_sent_at": None}, False),
            ({"settled_at": NOW}, False),
            ({"settled_at": NOW, "first_sent_at": None}, False),
            ({"status": Status.FAILED, "needs_review": True}, False),
            ({"status": Status.FAILED, "first_sent_at": None}, False),
            ({"status": Status.COMPLETED, "stripe_refund_id": "re_1"}, False),
        ],
    )
    def test_it_is_only_while_that_is_safe(self, columns: dict[str, Any], expected: bool) -> None:
        assert may_send(row(**columns), NOW) is expected


class TestAfterLook:
    @staticmethod
    def look(refund: Refund, look: Any) -> Any:
        return after_look(refund, look, NOW, lambda _: Beside())

    def test_it_sends_what_is_not_there_and_fits(self) -> None:
        assert self.look(new(), paid()) == Terms(15_000, "eur")
        assert self.look(row(), paid()) == Terms(15_000, "eur")

    @pytest.mark.parametrize("refund", [new(), row()])
    def test_it_takes_what_is_there(self, refund: Refund) -> None:
        columns = self.look(refund, paid(at_stripe())).columns
        assert (columns["status"], columns["stripe_refund_id"]) == (Status.COMPLETED, "re_1")

    def test_it_takes_what_is_there_whatever_else_would_stand_against_it(self) -> None:
        """The store was restored: the refund is why nothing is left to refund."""
        forgotten = new(
            amount_asked=Decimal(150), amount_minor=None, currency="", further_payment=True
        )
        columns = self.look(forgotten, paid(at_stripe(), refunded_by_charge=15_000)).columns
        assert columns["status"] == Status.COMPLETED
        assert (columns["amount_minor"], columns["currency"]) == (15_000, "eur")
        assert not columns["needs_review"]

    def test_what_is_there_of_another_amount_waits_for_a_person(self) -> None:
        asked = new(amount_asked=Decimal(100), amount_minor=None, currency="")
        columns = self.look(asked, paid(at_stripe())).columns
        assert (columns["status"], columns["needs_review"]) == (Status.COMPLETED, True)
        assert "150.00 EUR instead of 100, in the payment's currency" in columns["last_error"]

    def test_it_asks_later_where_stripe_does_not_answer(self) -> None:
        assert self.look(new(), UNKNOWN).again

    def test_a_payment_that_is_not_there_fails_unless_something_was_sent(self) -> None:
        look = NoSuchPayment("No such payment_intent: 'pi_1'")
        failed = self.look(new(), look).columns
        assert (failed["status"], failed["review_code"]) == (Status.FAILED, "no_such_payment")
        sent = self.look(row(), look).columns
        assert "status" not in sent
        assert sent["review_code"] == "no_such_payment"

    @pytest.mark.parametrize(
        "columns", [{"needs_review": True}, {"settled_at": NOW}, {"attempts": 151}]
    )
    def test_nothing_is_sent_against_a_decision_or_without_end(
        self, columns: dict[str, Any]
    ) -> None:
        assert not isinstance(self.look(new(**columns), paid()), Terms)


class TestJudge:
    @pytest.mark.parametrize(
        ("said", "status", "review", "again"),
        [
            # Sent, and answered with a refund.
            (Evidence(at_stripe()), Status.COMPLETED, False, False),
            (Evidence(at_stripe(status="pending")), Status.COMPLETED, False, True),
            (Evidence(at_stripe(status="failed")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="canceled")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="requires_action")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="on_hold")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(status="")), Status.COMPLETED, True, False),
            (
                Evidence(at_stripe(key=idempotency_key("BK-2", "pi_1"))),
                Status.COMPLETED,
                True,
                False,
            ),
            (Evidence(at_stripe(key="")), Status.COMPLETED, False, False),
            (Evidence(at_stripe(amount_minor=1)), Status.COMPLETED, True, False),
            (Evidence(at_stripe(currency="usd")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(payment_id="pi_2")), Status.COMPLETED, True, False),
            (Evidence(at_stripe(payment_id="", charge_id="pi_1")), Status.COMPLETED, False, False),
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
        done = status == Status.COMPLETED
        assert bool(conclusion.columns.get("last_error")) is (review or (again and not done))

    def test_it_completes_with_what_stripe_has(self) -> None:
        columns = judge(row(), Evidence(at_stripe(record={"id": "re_1"})), NOW).columns
        assert columns["stripe_refund_id"] == "re_1"
        assert columns["stripe_status"] == "succeeded"
        assert columns["response_payload"] == {"id": "re_1"}

    def test_it_takes_a_refund_under_another_issue_of_the_key_for_the_bookings(self) -> None:
        reissued = row(idempotency_key=f"{KEY}:2")
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
        assert not (review and conclusion.again) or done
        if columns.get("status") == Status.FAILED:
            assert isinstance(sent, StripeRefusal)
            assert isinstance(listed, list)
            assert not any(one.key.startswith(KEY) for one in listed)
        if "idempotency_key" in columns:
            assert isinstance(sent, StripeRefusal)
            assert listed == []


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


class TestPassing:
    @pytest.mark.parametrize(
        "refused",
        [
            StripeRefusal("balance_insufficient", "Insufficient funds."),
            StripeRefusal("", "Insufficient funds in your Stripe balance to refund this amount."),
        ],
    )
    def test_a_lack_of_balance_is_asked_again_under_the_next_key(
        self, refused: StripeRefusal
    ) -> None:
        """Stripe keeps its refusal under the key."""
        conclusion = judge(row(), Evidence(refused, []), NOW)
        assert conclusion.again
        assert conclusion.columns["idempotency_key"] == f"{KEY}:2"
        assert conclusion.columns["request_payload"] == {}
        assert conclusion.columns["first_sent_at"] is None
        assert not conclusion.columns.get("needs_review")

    def test_a_lack_of_balance_that_lasts_waits_for_a_person(self) -> None:
        refused = StripeRefusal("balance_insufficient", "Insufficient funds.")
        columns = judge(row(attempts=150), Evidence(refused, []), NOW).columns
        assert (columns["needs_review"], columns["review_code"]) == (True, "no_balance")
        assert columns["idempotency_key"] == f"{KEY}:2"

    def test_a_lack_of_balance_for_what_is_there_is_none(self) -> None:
        refused = StripeRefusal("balance_insufficient", "Insufficient funds.")
        columns = judge(row(), Evidence(refused, [at_stripe()]), NOW).columns
        assert columns["status"] == Status.COMPLETED
        assert "idempotency_key" not in columns

    @pytest.mark.parametrize(
        ("refund", "reached", "undone"),
        [(new(), False, True), (new(), True, False), (row(), False, False)],
    )
    def test_what_was_not_executed_does_not_start_the_life_of_its_key(
        self, refund: Refund, reached: bool, undone: bool
    ) -> None:
        said = Evidence(Unknown("Stripe answered 401", reached=reached))
        conclusion = judge(refund, said, NOW)
        assert conclusion.again
        assert ("first_sent_at" in conclusion.columns) is undone
        assert conclusion.columns.get("first_sent_at") is None

    @pytest.mark.parametrize(
        ("age", "pause"),
        [
            (timedelta(0), timedelta(minutes=30)),
            (-timedelta(minutes=3), timedelta(minutes=30)),
            (timedelta(hours=5), timedelta(hours=5)),
            (timedelta(days=5), timedelta(days=1)),
        ],
    )
    def test_a_pending_refund_is_looked_at_more_and_more_rarely(
        self, age: timedelta, pause: timedelta
    ) -> None:
        pending = at_stripe(status="pending", created_at=NOW - age)
        conclusion = judge(row(), Evidence(pending), NOW)
        assert (conclusion.again, conclusion.pause) == (True, pause)


class TestKeyOfTheVersionBefore:
    OLD = booking_key("BK-1")

    @pytest.mark.parametrize("key", [OLD, f"{OLD}:2"])
    def test_a_refund_under_it_is_that_of_the_whole_booking(self, key: str) -> None:
        listed = Evidence(None, [at_stripe(key=key)])
        assert judge(new(), listed, NOW).columns["status"] == Status.COMPLETED
        assert judge(row(idempotency_key=key), listed, NOW).columns["status"] == Status.COMPLETED

    def test_it_is_none_of_a_step_or_of_another_payment(self) -> None:
        step = new(seats_remaining=2, idempotency_key=idempotency_key("BK-1", "pi_1", 2))
        other = new(payment_id="pi_2", idempotency_key=idempotency_key("BK-1", "pi_2"))
        for refund in (step, other):
            conclusion = judge(refund, Evidence(None, [at_stripe(key=self.OLD)]), NOW)
            assert "status" not in conclusion.columns
