"""What the platform relies on in Stripe: the same assertions on the sandbox and on Stripe itself.

Stripe's own test mode takes part once ``STRIPE_CONTRACT_KEY`` holds a key of it (``sk_test_…`` or
``rk_test_…``); no money moves there.
"""

import os
from collections.abc import Iterator
from typing import Any, cast
from uuid import uuid4

import pytest
import stripe
from stripe.params import RefundCreateParams

from booking_platform.development.stripe_sandbox import running

KEY = os.environ.get("STRIPE_CONTRACT_KEY", "")
AMOUNT = 15_000
NO_KEY = pytest.mark.skipif(not KEY, reason="STRIPE_CONTRACT_KEY is not set")


def parties() -> list[Any]:
    """The sandbox always; Stripe if there is a key. CI shows no skip for what it never runs."""
    stripe_itself = pytest.param("stripe", marks=NO_KEY)
    return ["sandbox"] if os.environ.get("CI") == "true" and not KEY else ["sandbox", stripe_itself]


def client(api_key: str, base: str | None) -> stripe.StripeClient:
    return stripe.StripeClient(api_key, base_addresses={"api": base} if base else None)


def new_key() -> str:
    return f"contract-{uuid4()}"


def checked(api_key: str) -> str:
    """Refuse any key that could move money."""
    if not api_key.startswith(("sk_test_", "rk_test_")):
        raise ValueError("STRIPE_CONTRACT_KEY is no key of test mode: give sk_test_… or rk_test_…")
    return api_key


@pytest.fixture(scope="module", params=parties())
def base(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of whoever is asked; None for Stripe's own."""
    if request.param == "stripe":
        checked(KEY)
        yield None
    else:
        with running() as sandbox:
            yield sandbox.url


@pytest.fixture(scope="module")
def api(base: str | None) -> stripe.StripeClient:
    return client("sk_test_contract" if base else checked(KEY), base)


@pytest.fixture
def intent(api: stripe.StripeClient) -> stripe.PaymentIntent:
    return api.v1.payment_intents.create(
        {
            "amount": AMOUNT,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        }
    )


def refund(api: stripe.StripeClient, key: str | None = None, /, **asked: Any) -> stripe.Refund:
    """Ask for a refund, be it one that Stripe's types would not let us ask for."""
    return api.v1.refunds.create(
        cast(RefundCreateParams, asked), {"idempotency_key": key or new_key()}
    )


def header(answered: stripe.Refund, name: str) -> str | None:
    assert answered.last_response is not None
    return answered.last_response.headers.get(name)


def replayed(answered: stripe.Refund) -> str | None:
    return header(answered, "Idempotent-Replayed")


def answer(refused: pytest.ExceptionInfo[stripe.StripeError]) -> stripe.ErrorObject:
    """Return the error as Stripe describes it."""
    assert refused.value.error is not None
    return refused.value.error


def message(refused: pytest.ExceptionInfo[stripe.StripeError]) -> str:
    return answer(refused).message or ""


@pytest.mark.parametrize("api_key", ["", "sk_live_1", "rk_live_1", "pk_test_1"])
def test_a_key_that_could_move_money_is_refused(api_key: str) -> None:
    with pytest.raises(ValueError, match="test mode"):
        checked(api_key)


class TestRefunds:
    def test_a_part_is_refunded(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        made = refund(api, payment_intent=intent.id, amount=5000, metadata={"booking": "BK-1"})
        assert made.id.startswith("re_")
        assert made.object == "refund"
        assert (made.amount, made.currency, made.status) == (5000, "eur", "succeeded")
        assert (made.payment_intent, made.charge) == (intent.id, intent.latest_charge)
        assert made.metadata is not None
        assert made.metadata.to_dict() == {"booking": "BK-1"}
        assert (header(made, "request-id") or "").startswith("req_")
        assert api.v1.refunds.retrieve(made.id).to_dict()["id"] == made.id

    def test_two_parts_of_less_than_half_are_two_refunds(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        one, two = (refund(api, payment_intent=intent.id, amount=1000) for _ in range(2))
        assert one.id != two.id

    def test_without_an_amount_the_rest_is_refunded(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        refund(api, payment_intent=intent.id, amount=1000)
        assert refund(api, payment_intent=intent.id).amount == AMOUNT - 1000

    def test_they_are_listed_newest_first(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        made = [
            refund(api, payment_intent=intent.id, amount=1000, metadata={"number": str(number)})
            for number in range(3)
        ]
        listed = api.v1.refunds.list({"payment_intent": intent.id, "limit": 2})
        assert [each.id for each in listed.data] == [made[2].id, made[1].id]
        assert [each.metadata and each.metadata["number"] for each in listed.data] == ["2", "1"]
        assert listed.has_more
        rest = api.v1.refunds.list({"payment_intent": intent.id, "starting_after": made[1].id})
        assert [each.id for each in rest.data] == [made[0].id]


class TestLook:
    """One request says all that must be known before a refund is sent."""

    def test_a_payment_says_what_is_left_and_what_was_refunded(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        made = [refund(api, payment_intent=intent.id, amount=1000).id for _ in range(2)]
        read = api.v1.payment_intents.retrieve(intent.id, {"expand": ["latest_charge.refunds"]})
        assert (read.status, read.currency) == ("succeeded", "eur")
        assert (read.amount, read.amount_received) == (AMOUNT, AMOUNT)
        charge = cast(stripe.Charge, read.latest_charge)
        assert (charge.object, charge.payment_intent) == ("charge", intent.id)
        assert (charge.amount_captured, charge.amount_refunded) == (AMOUNT, 2000)
        assert (charge.status, charge.disputed, charge.refunded) == ("succeeded", False, False)
        assert charge.refunds is not None
        assert [each.id for each in charge.refunds.data] == made[::-1]
        assert not charge.refunds.has_more

    def test_a_charge_says_the_same(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        made = refund(api, payment_intent=intent.id, amount=1000)
        named = cast(str, made.charge)
        paths: list[Any] = ["payment_intent", "refunds"]
        read = api.v1.charges.retrieve(named, {"expand": paths})
        assert cast(stripe.PaymentIntent, read.payment_intent).id == intent.id
        assert (read.amount, read.amount_refunded, read.currency) == (AMOUNT, 1000, "eur")
        assert read.refunds is not None
        assert [each.id for each in read.refunds.data] == [made.id]
        listed = api.v1.refunds.list({"charge": named})
        assert [each.id for each in listed.data] == [made.id]

    def test_a_charge_is_refunded_by_its_own_id(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        made = refund(api, charge=intent.latest_charge, amount=1000)
        assert (made.charge, made.payment_intent) == (intent.latest_charge, intent.id)

    def test_what_can_not_be_expanded_is_refused(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            api.v1.payment_intents.retrieve(intent.id, {"expand": ["colour"]})
        assert refused.value.http_status == 400
        assert message(refused).startswith("This property cannot be expanded (colour)")

    def test_a_payment_that_was_never_paid_has_no_charge_to_refund(
        self, api: stripe.StripeClient
    ) -> None:
        unpaid = api.v1.payment_intents.create(
            {"amount": AMOUNT, "currency": "eur", "confirm": False}
        )
        assert unpaid.status == "requires_payment_method"
        assert (unpaid.amount_received, unpaid.latest_charge) == (0, None)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(api, payment_intent=unpaid.id, amount=1000)
        assert "does not have a successful charge to refund" in message(refused)


class TestRefusals:
    def test_more_than_what_is_left(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        refund(api, payment_intent=intent.id, amount=5000)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(api, payment_intent=intent.id, amount=AMOUNT)
        assert refused.value.http_status == 400
        assert message(refused) == (
            "Refund amount (€150.00) is greater than unrefunded amount on charge (€100.00)"
        )
        assert (answer(refused).code, answer(refused).param) == (None, "amount")

    def test_a_charge_that_is_refunded_already(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        refund(api, payment_intent=intent.id)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(api, payment_intent=intent.id, amount=1)
        assert refused.value.http_status == 400
        assert answer(refused).code == "charge_already_refunded"
        assert message(refused) == (f"Charge {intent.latest_charge} has already been refunded.")

    def test_an_unknown_payment(self, api: stripe.StripeClient) -> None:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(api, payment_intent="pi_x", amount=1)
        assert answer(refused).code == "resource_missing"
        assert message(refused).startswith("No such payment_intent: 'pi_x'")
        assert answer(refused).param == "payment_intent"

    def test_a_wrong_api_key(self, base: str | None) -> None:
        with pytest.raises(stripe.AuthenticationError) as refused:
            client("sk_wrong_1234567890", base).v1.refunds.list()
        assert refused.value.http_status == 401
        assert answer(refused).type == "invalid_request_error"
        assert message(refused).startswith("Invalid API Key provided: ")
        assert "123456" not in message(refused)


class TestIdempotencyKeys:
    def test_a_repeated_request_is_answered_as_before(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        key = new_key()
        first = refund(api, key, payment_intent=intent.id, amount=5000)
        again = refund(api, key, amount=5000, payment_intent=intent.id)
        assert again.id == first.id
        assert (replayed(first), replayed(again)) == (None, "true")
        assert len(api.v1.refunds.list({"payment_intent": intent.id}).data) == 1

    def test_other_parameters_are_refused(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        key = new_key()
        refund(api, key, payment_intent=intent.id, amount=5000)
        with pytest.raises(stripe.IdempotencyError) as refused:
            refund(api, key, payment_intent=intent.id, amount=4000)
        assert refused.value.http_status == 400
        assert answer(refused).type == "idempotency_error"
        assert "same parameters they were first used with" in message(refused)
        assert key in message(refused)

    def test_another_endpoint_is_refused(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        key = new_key()
        refund(api, key, payment_intent=intent.id, amount=5000)
        with pytest.raises(stripe.IdempotencyError) as refused:
            api.v1.payment_intents.create(
                {"amount": AMOUNT, "currency": "eur"}, {"idempotency_key": key}
            )
        assert refused.value.http_status == 400
        assert "('/v1/payment_intents' vs '/v1/refunds')" in message(refused)

    def test_a_request_that_was_not_valid_leaves_the_key_free(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        key = new_key()
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(api, key, payment_intent=intent.id, amount="many")
        assert answer(refused).code == "parameter_invalid_integer"
        assert refund(api, key, payment_intent=intent.id, amount=1000).amount == 1000

    def test_a_refusal_of_business_is_answered_as_before(
        self, api: stripe.StripeClient, intent: stripe.PaymentIntent
    ) -> None:
        key = new_key()
        for attempt in ("first", "again"):
            with pytest.raises(stripe.InvalidRequestError) as refused:
                refund(api, key, payment_intent=intent.id, amount=AMOUNT + 1)
            assert refused.value.headers is not None
            again = refused.value.headers.get("Idempotent-Replayed")
            assert again == (None if attempt == "first" else "true")
