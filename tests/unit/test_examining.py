"""What stands against sending a refund, after a look at its payment."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from booking_platform.messaging.leases import Conclusion
from payments.answers import StripePayment, StripeRefund
from payments.examining import Beside, Terms, examine, frozen
from payments.keys import idempotency_key
from payments.models import Refund
from payments.reviews import REVIEWS
from tests.unit.refunds import KEY, NOW, at_stripe, new, paid, row


def result(refund: Refund, payment: StripePayment, **given: Any) -> Any:
    return examine(refund, payment, NOW, Beside(**given))


def code(refund: Refund, payment: StripePayment, **given: Any) -> str:
    conclusion = result(refund, payment, **given)
    assert isinstance(conclusion, Conclusion), conclusion
    assert conclusion.columns["needs_review"]
    assert conclusion.columns["last_error"].startswith("not sent: ")
    return str(conclusion.columns["review_code"])


def by_hand(**fields: Any) -> StripeRefund:
    return at_stripe(**{"refund_id": "re_9", "key": "", "amount_minor": 100, **fields})


ASKED = {"amount_minor": None, "currency": "", "amount_asked": Decimal("150.00")}


class TestFirstSend:
    @pytest.mark.parametrize(
        ("columns", "payment", "terms"),
        [
            ({}, paid(), (15_000, "eur")),
            (ASKED, paid(), (15_000, "eur")),
            (ASKED, paid(currency="jpy", received_minor=200_000), (150, "jpy")),
            (ASKED, paid(currency="isk", received_minor=200_000), (15_000, "isk")),
            (ASKED, paid(currency="kwd", received_minor=200_000), (150_000, "kwd")),
            ({"amount_asked": Decimal("150.00")}, paid(), (15_000, "eur")),
            ({}, paid(booking_id="BK-1"), (15_000, "eur")),
            ({"further_payment": True}, paid(booking_id="BK-1"), (15_000, "eur")),
            ({"amount_minor": 5_000}, paid(refunded_by_charge=10_000), (5_000, "eur")),
        ],
    )
    def test_it_goes_out_in_the_payments_currency(
        self, columns: Any, payment: StripePayment, terms: tuple[int, str]
    ) -> None:
        assert result(new(**columns), payment) == Terms(*terms)

    @pytest.mark.parametrize(
        ("columns", "payment", "expected"),
        [
            ({}, paid(received_minor=0, status="requires_capture"), "not_paid"),
            ({}, paid(received_minor=0, status="canceled"), "not_paid"),
            ({}, paid(currency="jpy", received_minor=10**6), "other_currency"),
            (ASKED | {"currency": "usd"}, paid(), "other_currency"),
            (ASKED | {"amount_asked": Decimal("1.50")}, paid(currency="jpy"), "no_exact_amount"),
            (ASKED | {"amount_asked": Decimal(10) ** 11}, paid(), "no_exact_amount"),
            ({}, paid(booking_id="BK-2"), "other_booking"),
            ({"further_payment": True}, paid(), "unnamed_payment"),
            ({"further_payment": True}, paid(booking_id="BK-2"), "other_booking"),
            ({}, paid(received_minor=14_999), "not_covered"),
            ({}, paid(refunded_by_charge=1), "not_covered"),
            ({}, paid(at_stripe(key=idempotency_key("BK-2", "pi_1"), amount_minor=1)), "not_covered"),
            ({"amount_minor": 5_000}, paid(by_hand()), "by_hand"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_waits_for_a_person(
        self, columns: Any, payment: StripePayment, expected: str
    ) -> None:
        assert code(new(**columns), payment) == expected

    def test_another_refund_of_the_same_payment_by_another_id_waits(self) -> None:
        further = new(payment_id="ch_1", further_payment=True)
        assert code(further, paid(booking_id="BK-1"), same_payment=True) == "same_payment"

    @pytest.mark.parametrize("status", ["failed", "canceled"])
    def test_what_came_back_to_the_merchant_can_be_refunded(self, status: str) -> None:
        back = at_stripe(key=idempotency_key("BK-2", "pi_1"), status=status)
        assert result(new(), paid(back)) == Terms(15_000, "eur")

    def test_a_refund_that_can_not_be_made_has_failed(self) -> None:
        for payment, failed in ((paid(currency="usd"), True), (paid(booking_id="x"), False)):
            columns = result(new(), payment).columns
            assert (columns.get("status") == "failed") is failed

    @pytest.mark.parametrize("status", ["processing", "pending"])
    def test_a_payment_on_its_way_is_waited_for(self, status: str) -> None:
        conclusion = result(new(), paid(status=status, received_minor=0))
        assert (conclusion.again, conclusion.pause) == (True, timedelta(hours=1))
        assert "needs_review" not in conclusion.columns
        old = new(created_at=NOW - timedelta(days=31))
        waits = result(old, paid(status=status, received_minor=0))
        assert waits.columns["review_code"] == "processing"

    def test_a_limit_holds_for_its_currency_alone(self, settings: Any) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 14_999, "usd": 1}
        assert code(new(), paid()) == "above_limit"
        settings.REFUND_REVIEW_ABOVE = {"eur": 15_000, "usd": 1}
        assert result(new(), paid()) == Terms(15_000, "eur")
        settings.REFUND_REVIEW_ABOVE = {}
        assert result(new(), paid()) == Terms(15_000, "eur")


class TestByHand:
    @pytest.mark.parametrize(
        ("fields", "stands_against_it"),
        [
            ({"created_at": NOW}, True),
            ({"created_at": NOW - timedelta(hours=3, minutes=5)}, True),  # clocks differ
            ({"created_at": NOW - timedelta(hours=3, minutes=6)}, False),
            ({"created_at": NOW - timedelta(days=9), "amount_minor": 5_000}, True),
            ({"created_at": NOW, "key": idempotency_key("BK-2", "pi_1")}, False),
        ],
    )
    def test_it_is_since_the_cancellation_or_of_just_this_amount(
        self, fields: Any, stands_against_it: bool
    ) -> None:
        refund = new(amount_minor=5_000, cancelled_at=NOW - timedelta(hours=3))
        found = result(refund, paid(by_hand(**fields)))
        assert isinstance(found, Conclusion) is stands_against_it

    def test_an_event_from_the_beginning_of_time_is_no_bug(self) -> None:
        refund = new(amount_minor=5_000, cancelled_at=NOW.min.replace(tzinfo=NOW.tzinfo))
        assert code(refund, paid(by_hand())) == "by_hand"

    def test_a_person_has_seen_those_that_were_put_up(self) -> None:
        seen = by_hand(refund_id="re_8")
        refund = new(amount_minor=5_000, approved_codes="by_hand", approved_by_hand="re_8")
        assert result(refund, paid(seen)) == Terms(5_000, "eur")
        assert code(refund, paid(seen, by_hand(refund_id="re_7"))) == "by_hand"

    def test_which_they_are_is_kept_for_that_person(self) -> None:
        said = result(new(amount_minor=5_000), paid(by_hand(refund_id="re_8")))
        assert isinstance(said, Conclusion)
        assert said.columns["by_hand"] == "re_8"


class TestApproval:
    def test_it_waives_its_code_and_no_other(self, settings: Any) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 1}
        refund = new(further_payment=True)
        assert code(refund, paid()) == "unnamed_payment"
        refund.approved_codes = "unnamed_payment"
        assert code(refund, paid()) == "above_limit"
        refund.approved_codes = "above_limit unnamed_payment"
        assert result(refund, paid()) == Terms(15_000, "eur")
        assert code(refund, paid(booking_id="BK-2")) == "other_booking"

    def test_what_can_not_be_approved_stays(self) -> None:
        approved = new(approved_codes=" ".join(REVIEWS), approved_at=NOW)
        assert result(approved, paid(booking_id="BK-2")) == Terms(15_000, "eur")
        for payment in (paid(currency="usd"), paid(received_minor=1), paid(received_minor=0)):
            assert not REVIEWS[code(approved, payment)].approvable


class TestLaterSends:
    def test_its_own_refund_may_be_why_the_payment_does_not_cover_it(self) -> None:
        for payment in (paid(refunded_by_charge=15_000), paid(status="processing")):
            assert result(row(), payment) == Terms(15_000, "eur")

    def test_what_was_refunded_by_hand_is_not_sent_again(self) -> None:
        assert code(row(), paid(by_hand())) == "by_hand"

    def test_the_guess_of_the_version_before_is_not_sent_again(self) -> None:
        conclusion = result(row(amount_minor=150_000), paid(currency="jpy", received_minor=10**6))
        assert conclusion.columns["review_code"] == "other_currency"
        assert "status" not in conclusion.columns

    def test_what_a_worker_of_the_version_before_sent_in_vain_counts_as_unsent(self) -> None:
        assert code(row(request_payload={}), paid(received_minor=0)) == "not_paid"


class TestProperties:
    REFUNDS = st.builds(
        at_stripe,
        key=st.sampled_from(["", idempotency_key("BK-2", "pi_1")]),
        amount_minor=st.integers(1, 20_000),
        status=st.sampled_from(Refund.StripeStatus.values),
        created_at=st.sampled_from([NOW, NOW - timedelta(days=30)]),
    )
    PAYMENTS = st.builds(
        paid,
        st.just(at_stripe(key="", amount_minor=7, created_at=NOW - timedelta(days=30))),
        currency=st.sampled_from(["eur", "jpy", "usd"]),
        received_minor=st.integers(0, 40_000),
        refunded_by_charge=st.integers(0, 40_000),
        booking_id=st.sampled_from(["", "BK-1", "BK-2"]),
    )

    @given(
        payment=PAYMENTS,
        further=st.booleans(),
        currency=st.sampled_from(["", "eur"]),
        amount=st.decimals("0.01", "300", places=2),
    )
    def test_what_goes_out_is_covered_and_of_the_right_currency_and_booking(
        self, payment: StripePayment, further: bool, currency: str, amount: Decimal
    ) -> None:
        refund = new(
            amount_asked=amount,
            amount_minor=int(amount * 100) if currency else None,
            currency=currency,
            further_payment=further,
        )
        terms = result(refund, payment)
        if isinstance(terms, Terms):
            assert terms.currency == payment.currency
            assert currency in ("", payment.currency)
            assert terms.amount_minor <= payment.received_minor - payment.refunded_minor
            assert Decimal(terms.amount_minor) == amount * (1 if terms.currency == "jpy" else 100)
            assert payment.booking_id == "BK-1" or (not payment.booking_id and not further)


class TestFrozen:
    def test_it_is_what_stripe_is_asked_for(self) -> None:
        columns = frozen(new(), Terms(150, "jpy"))
        metadata = {"booking_id": "BK-1", "idempotency_key": KEY, "seats_remaining": "0"}
        assert columns == {
            "amount_minor": 150,
            "currency": "jpy",
            "request_payload": {"payment_intent": "pi_1", "amount": 150, "metadata": metadata},
        }

    @pytest.mark.parametrize("payment", ["ch_1", "py_1"])
    def test_it_names_a_charge_as_such(self, payment: str) -> None:
        request = frozen(new(payment_id=payment), Terms(1, "eur"))["request_payload"]
        assert request["charge"] == payment
        assert "payment_intent" not in request
