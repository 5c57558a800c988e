"""Which cancellations are repeats, and which are steps of a booking's life with a refund of their own."""

from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import inbox, rows
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from payments import requesting
from payments.keys import booking_key
from payments.models import NothingToRefund, Refund
from tests.events import cancelled, deliveries
from tests.factories import RefundFactory
from tests.integration.refunds import QUEUE, cancel, in_thread, only, sweep_until_quiet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

AT = "2026-11-22T10:00:00Z"
LATER = "2026-11-22T10:00:01Z"


@pytest.fixture(autouse=True)
def _no_event_is_stale(settings: Any) -> None:
    settings.PROCESSED_EVENTS_RETENTION = settings.PROCESSED_EVENTS_RETENTION * 1000


def outcomes() -> list[str]:
    return list(ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True))


def reasons() -> list[str]:
    return list(DeadLetter.objects.order_by("pk").values_list("reason", flat=True))


def amounts(stripe: Sandbox) -> list[int]:
    return sorted(one["amount"] for one in stripe.refunds)


class TestNamedSteps:
    @pytest.mark.parametrize("order", [*permutations([(2, 20), (1, 20), (0, 40)])])
    def test_each_is_refunded_once_in_any_order_and_under_any_ids(
        self, stripe: Sandbox, payment: str, order: tuple[tuple[int, int], ...]
    ) -> None:
        for _ in range(2):
            for step, amount in order:
                cancel("BK-1", payment, amount, seatsRemaining=step)
        assert amounts(stripe) == [2_000, 2_000, 4_000]
        steps = Refund.objects.order_by("seats_remaining").values_list("seats_remaining", "status")
        assert list(steps) == [(0, "completed"), (1, "completed"), (2, "completed")]
        assert outcomes() == ["refund_requested"] * 3 + ["refund_known"] * 3
        assert reasons() == []
        noted = {one["metadata"]["seats_remaining"] for one in stripe.refunds}
        assert noted == {"0", "1", "2"}

    @pytest.mark.parametrize("step", [0, 2])
    @pytest.mark.parametrize("other", [{"amount": 21}, {"currency": "usd"}, {"amount": None}])
    def test_another_wish_for_a_step_is_parked(
        self, stripe: Sandbox, payment: str, step: int, other: dict[str, Any]
    ) -> None:
        cancel("BK-1", payment, 20, seatsRemaining=step)
        wish = {"payment": payment, "amount": 20, "seatsRemaining": step, **other}
        if wish["amount"] is None:
            wish["payment"] = None
        cancel("BK-1", **wish)
        assert reasons() == ["differs"]
        assert amounts(stripe) == [2_000]

    def test_a_step_without_a_refund_is_apart_from_the_others(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", None, None, seatsRemaining=2)
        cancel("BK-1", payment, 20, seatsRemaining=1)
        cancel("BK-1", None, 0, seatsRemaining=0)
        assert outcomes() == ["nothing_to_refund", "refund_requested", "nothing_to_refund"]
        cancel("BK-1", payment, 20, seatsRemaining=2)
        cancel("BK-1", None, None, seatsRemaining=1)
        assert reasons() == ["differs", "differs"]
        assert amounts(stripe) == [2_000]
        rows = NothingToRefund.objects.order_by("pk").values_list("seats_remaining", "step_named")
        assert list(rows) == [(2, True), (0, True)]

    def test_a_currency_that_is_not_named_is_the_one_that_is_known(
        self, stripe: Sandbox, payment: str
    ) -> None:
        for currency in (None, "eur", "EUR", None):
            cancel("BK-1", payment, Decimal("20.00"), seatsRemaining=1, currency=currency)
        assert amounts(stripe) == [2_000]
        assert reasons() == []
        cancel("BK-1", payment, 20, seatsRemaining=1, currency="usd")
        assert reasons() == ["differs"]


class TestRevisions:
    """After a change a booking may come to the same number of seats again."""

    @pytest.mark.parametrize(
        ("first", "second", "known"),
        [(2, 2, True), (None, None, True), (None, 2, False), (2, None, False), (2, 4, False), (4, 2, False)],
    )  # fmt: skip
    def test_another_one_of_a_step_is_ambiguous(
        self, stripe: Sandbox, payment: str, first: int | None, second: int | None, known: bool
    ) -> None:
        for revision in (first, second):
            cancel("BK-1", payment, 20, seatsRemaining=3, revision=revision)
        assert reasons() == ([] if known else ["ambiguous"])
        assert amounts(stripe) == [2_000]
        if not known:
            before, now = first or "none", second or "none"
            assert f"revision is {before}, and now {now}" in DeadLetter.objects.get().detail

    def test_it_can_not_be_read_where_it_is_none(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 20, seatsRemaining=3, revision="new")
        assert reasons() == ["invalid"]
        assert stripe.requests == []


class TestStepsWithoutAName:
    def test_the_same_of_the_same_moment_is_a_repeat(self, stripe: Sandbox, payment: str) -> None:
        for _ in range(3):
            cancel("BK-1", payment, 20, timestamp=AT)
        assert outcomes() == ["refund_requested", "refund_known", "refund_known"]
        assert reasons() == []
        assert amounts(stripe) == [2_000]

    @pytest.mark.parametrize(
        "other", [{"timestamp": LATER}, {"seats": 2}, {"seatsRemaining": 0}, {"currency": "eur"}]
    )
    def test_the_same_wish_of_another_moment_or_payload_is_ambiguous(
        self, stripe: Sandbox, payment: str, other: dict[str, Any]
    ) -> None:
        cancel("BK-1", payment, 20, timestamp=AT)
        cancel("BK-1", payment, 20, **{"timestamp": AT, **other})
        assert reasons() == ["ambiguous"]
        assert "without payload.seatsRemaining" in DeadLetter.objects.get().detail
        assert amounts(stripe) == [2_000]
        assert not only().step_named

    def test_it_is_ambiguous_after_a_named_one_too(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 20, timestamp=AT, seatsRemaining=0)
        cancel("BK-1", payment, 20, timestamp=AT)
        assert reasons() == ["ambiguous"]
        assert amounts(stripe) == [2_000]

    def test_another_wish_is_parked(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 20, timestamp=AT)
        cancel("BK-1", payment, 21, timestamp=AT)
        cancel("BK-1", None, None, timestamp=AT)
        assert reasons() == ["differs", "differs"]

    def test_nothing_is_ambiguous_where_nothing_is_asked(self, stripe: Sandbox) -> None:
        for moment in (AT, LATER, AT):
            cancel("BK-1", None, None, timestamp=moment)
        cancel("BK-1", None, 0, timestamp=LATER, seatsRemaining=0)
        assert reasons() == []
        assert set(outcomes()) == {"nothing_to_refund", "refund_known"}

    def test_a_named_step_is_another_than_the_whole_booking(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 20, timestamp=AT)
        cancel("BK-1", payment, 20, timestamp=AT, seatsRemaining=2)
        assert amounts(stripe) == [2_000, 2_000]
        assert reasons() == []

    def test_a_parked_one_leaves_no_memory(self, stripe: Sandbox, payment: str) -> None:
        """The third is told from the first, not from the second."""
        cancel("BK-1", payment, 20, timestamp=AT)
        for _ in range(2):
            cancel("BK-1", payment, 20, timestamp=LATER)
        assert reasons() == ["ambiguous", "ambiguous"]


class TestRowsOfTheVersionBefore:
    @pytest.fixture
    def old(self, payment: str) -> Refund:
        """A refund of 150 euros, of which the step and what the event said are not known."""
        return RefundFactory.create(
            booking_id="BK-1", payment_id=payment, idempotency_key=booking_key("BK-1")
        )

    @pytest.mark.parametrize(
        ("amount", "over", "reason"),
        [
            (150, {}, "ambiguous"),
            (150, {"currency": "EUR", "seatsRemaining": 0}, "ambiguous"),
            (151, {}, "differs"),
            (150, {"currency": "usd"}, "differs"),
            (0, {}, "differs"),
        ],
    )
    def test_what_comes_again_is_held_against_them(
        self, stripe: Sandbox, old: Refund, amount: int, over: dict[str, Any], reason: str
    ) -> None:
        cancel("BK-1", old.payment_id, amount, **over)
        assert reasons() == [reason]
        assert stripe.requests == []

    def test_a_step_that_it_took_for_the_whole_is_a_repeat(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 20, timestamp=AT, seatsRemaining=2)
        Refund.objects.update(seats_remaining=0, step_named=False)  # as it stores each
        cancel("BK-1", payment, 20, timestamp=AT, seatsRemaining=2)
        assert outcomes() == ["refund_requested", "refund_known"]
        assert amounts(stripe) == [2_000]

    @pytest.mark.parametrize("amount", [60, None])
    def test_one_that_is_stored_meanwhile_is_seen(
        self, stripe: Sandbox, payment: str, monkeypatch: pytest.MonkeyPatch, amount: int | None
    ) -> None:
        """A worker of the version before does not wait for its turn."""
        if amount:
            RefundFactory.create(booking_id="BK-1", payment_id=payment, amount_minor=1)
        else:
            NothingToRefund.objects.create(booking_id="BK-1")
        known = requesting._known
        answers = iter([lambda *_: None])  # read before the other has committed

        def as_read(*given: Any) -> Any:
            return next(answers, known)(*given)

        monkeypatch.setattr(requesting, "_known", as_read)
        cancel("BK-1", payment if amount else None, amount)
        assert (outcomes(), reasons()) == (([], ["differs"]) if amount else (["refund_known"], []))


class TestAtOnce:
    @pytest.fixture
    def turns(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The names under which transactions waited for their turn."""
        taken: list[str] = []
        wait = rows.one_at_a_time

        def noted(name: str) -> None:
            taken.append(name)
            wait(name)

        monkeypatch.setattr(requesting, "one_at_a_time", noted)
        return taken

    def test_of_contradictory_cancellations_one_is_refunded(
        self, stripe: Sandbox, turns: list[str]
    ) -> None:
        """Each wants another payment, and the metadata name no booking: one alone may go out."""
        payments = [stripe.payment(amount=15_000, currency="eur") for _ in range(6)]
        waits = [in_thread(lambda p=payment: cancel("BK-1", p, 60)) for payment in payments]  # type: ignore[misc]
        for wait in waits:
            wait()
        sweep_until_quiet()
        assert turns == ["refunds of BK-1"] * 6
        assert amounts(stripe) == [6_000]
        assert Refund.objects.filter(review_code="unnamed_payment").count() == 5

    def test_of_different_amounts_one_is_refunded(self, stripe: Sandbox, payment: str) -> None:
        waits = [
            in_thread(lambda n=n: cancel("BK-1", payment, 10 + n, seatsRemaining=1))  # type: ignore[misc]
            for n in range(6)
        ]
        for wait in waits:
            wait()
        sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert reasons() == ["differs"] * 5

    def test_without_turns_two_payments_would_be_refunded(
        self, stripe: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The control: on PostgreSQL nothing else keeps the two apart."""
        if connection.vendor == "sqlite":
            pytest.skip("it has one writer at a time")
        payments = [stripe.payment(amount=15_000, currency="eur") for _ in range(2)]
        other = cancelled(1, "BK-1", paymentId=payments[1], amount=60)
        insert = rows.insert_missing
        waits: list[None] = []

        def slow(model: Any, given: Any, **how: Any) -> Any:
            if model is Refund and not waits:
                waits.append(None)
                in_thread(lambda: inbox.process(CONSUMERS[QUEUE], deliveries(other)))()
            return insert(model, given, **how)

        monkeypatch.setattr(requesting, "insert_missing", slow)
        monkeypatch.setattr(requesting, "one_at_a_time", lambda _name: None)
        cancel("BK-1", payments[0], 60)
        assert amounts(stripe) == [6_000, 6_000]


# What a producer may say of one booking: a step or none, a payment, an amount, a moment.
WORDS = st.tuples(
    st.sampled_from([None, 0, 1, 2]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([None, 10, 20]),
    st.sampled_from([AT, LATER]),
)
Word = tuple[int | None, str, int | None, str]


def expected(words: list[Word]) -> tuple[set[tuple[str, int, int]], list[str]]:
    """Return what is refunded and what becomes of each event, by the plainest model there is."""
    refunds: dict[tuple[str, int], tuple[int, bool]] = {}
    nothing: set[int] = set()
    applied: set[Word] = set()
    results = []
    for word in words:
        step, payment, amount, _moment = word
        at = step or 0
        for_step = {p for p, s in refunds if s == at}
        if amount is None:
            result = "differs" if for_step else "known" if at in nothing else "nothing"
            nothing |= {at} if not for_step else set()
        elif at in nothing:
            result = "differs"
        elif (payment, at) in refunds:
            was, named = refunds[payment, at]
            sure = (step is not None and named) or word in applied
            result = "differs" if was != amount else "known" if sure else "ambiguous"
        else:
            refunds[payment, at] = (amount, step is not None)
            result = "requested"
        if result in ("requested", "known", "nothing"):
            applied.add(word)
        results.append(result)
    return {(payment, step, amount) for (payment, step), (amount, _) in refunds.items()}, results


class TestAgainstAModel:
    @hypothesis_settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(words=st.lists(WORDS, min_size=1, max_size=8))
    def test_each_life_ends_in_the_same_refunds_and_nothing_is_silent(
        self, stripe: Sandbox, words: list[Word]
    ) -> None:
        for model in (Refund, NothingToRefund, ProcessedEvent, DeadLetter):
            model.objects.all().delete()
        stripe.reset()
        payments = {
            name: stripe.payment(amount=50_000, currency="eur", metadata={"booking_id": "BK-1"})
            for name in "ab"
        }
        names = {payment: name for name, payment in payments.items()}
        results: list[str] = []
        for step, payment, amount, moment in words:
            named: dict[str, Any] = {} if step is None else {"seatsRemaining": step}
            given = (payments[payment], amount) if amount else (None, None)
            parked = DeadLetter.objects.count()
            cancel("BK-1", *given, timestamp=moment, event_id=str(len(results)), **named)
            if DeadLetter.objects.count() > parked:
                results.append(DeadLetter.objects.latest("pk").reason)
            else:
                outcome = ProcessedEvent.objects.get(event_id=str(len(results))).outcome
                results.append(outcome.removeprefix("refund_").removesuffix("_to_refund"))
        refunds, becomes = expected(words)
        made = [
            (
                names[one["payment_intent"]],
                int(one["metadata"]["seats_remaining"]),
                one["amount"] // 100,
            )
            for one in stripe.refunds
        ]
        assert sorted(made) == sorted(refunds)
        assert results == becomes
