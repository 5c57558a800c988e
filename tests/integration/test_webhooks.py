"""Stripe's webhooks: signed bodies over real HTTP, and what they may and may not do."""

import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from django.test import Client

from booking_platform.development.stripe_sandbox import running
from booking_platform.messaging import inbox
from booking_platform.messaging.rules import CONSUMERS
from payments import tasks
from payments.keys import idempotency_key
from payments.models import Refund
from tests.events import cancelled, deliveries
from tests.factories import RefundFactory
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "whsec_test"
PATH = "/webhooks/stripe/"


@pytest.fixture(autouse=True)
def _secret(settings: Any) -> None:
    settings.STRIPE_WEBHOOK_SECRET = SECRET


def signature(body: bytes, *, secret: str = SECRET, at: float | None = None) -> str:
    """Sign as https://docs.stripe.com/webhooks#verify-manually says."""
    stamp = int(at or time.time())
    digest = hmac.new(secret.encode(), f"{stamp}.".encode() + body, sha256).hexdigest()
    return f"t={stamp},v1={digest}"


def event(kind: str = "refund.updated", **about: Any) -> bytes:
    known = {"object": "refund", "id": "re_1", "payment_intent": "pi_1", "metadata": {}}
    data = {"object": {**known, **about}}
    return json.dumps({"id": "evt_1", "object": "event", "type": kind, "data": data}).encode()


def post(body: bytes, signed: str | None = None) -> int:
    header = {} if signed == "" else {"Stripe-Signature": signed or signature(body)}
    answer = Client().post(PATH, body, content_type="application/json", headers=header)
    return answer.status_code


def due() -> bool:
    return Refund.objects.get().next_attempt_at is not None


class TestSignatures:
    @pytest.mark.parametrize(
        "sign",
        [
            lambda: "",
            lambda: "nonsense",
            lambda: "t=1,v1=",
            lambda: f"t={int(time.time())},v1=00",
            lambda: signature(event(), secret="whsec_other"),
            lambda: signature(event(), at=time.time() - 301),
            lambda: signature(event("refund.failed")),
            lambda: signature(event()).replace("v1=", "v0="),
        ],
        ids=["none", "nonsense", "empty", "zeros", "secret", "late", "body", "version"],
    )
    def test_what_stripe_did_not_sign_just_now_is_refused(self, sign: Callable[[], str]) -> None:
        """Signed within the test: an old signature is refused for its age alone."""
        RefundFactory.create(payment_id="pi_1")
        assert post(event(), sign()) == 400
        assert not due()

    @pytest.mark.parametrize("ahead", [600, -600])
    def test_it_is_not_judged_by_the_clock_of_this_machine(
        self, monkeypatch: pytest.MonkeyPatch, ahead: int
    ) -> None:
        RefundFactory.create(payment_id="pi_1")
        signed, true = signature(event()), time.time
        monkeypatch.setattr(time, "time", lambda: true() + ahead)
        assert post(event(), signed + ",more") == 200
        assert due()

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"[]", b"{}", b"null", b"\xff\xfe", b"not json", b'{"object": "event"}',
            b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        ],
    )  # fmt: skip
    def test_what_is_no_event_is_refused_though_it_is_signed(self, body: bytes) -> None:
        assert post(body) == 400

    def test_it_takes_nothing_but_posts(self) -> None:
        assert Client().get(PATH).status_code == 405

    def test_without_a_secret_nothing_is_believed(self, settings: Any) -> None:
        RefundFactory.create(payment_id="pi_1")
        settings.STRIPE_WEBHOOK_SECRET = ""
        assert post(event(), signature(event(), secret="")) == 503
        assert not due()


class TestNotices:
    @pytest.mark.parametrize(
        ("kind", "about"),
        [
            ("refund.created", {"metadata": {"idempotency_key": "KEY"}}),
            ("refund.updated", {}),
            ("refund.failed", {"payment_intent": None}),
            ("charge.refunded", {"object": "charge", "id": "ch_1"}),
            ("charge.refund.updated", {}),
        ],
    )
    def test_it_has_the_refund_taken_up_and_believes_nothing(
        self, kind: str, about: dict[str, Any]
    ) -> None:
        row = RefundFactory.create(payment_id="pi_1", status="completed", stripe_refund_id="re_1")
        if "metadata" in about:
            about = {"metadata": {"idempotency_key": row.idempotency_key}, "payment_intent": "x"}
        for _ in range(3):
            assert post(event(kind, status="failed", **about)) == 200
        row.refresh_from_db()
        assert row.next_attempt_at is not None
        assert (row.status, row.needs_review) == ("completed", False)

    @pytest.mark.parametrize(
        ("kind", "about"),
        [
            ("refund.updated", {"id": "re_9", "payment_intent": None, "charge": "ch_1"}),
            ("charge.refunded", {"object": "charge", "id": "ch_1", "payment_intent": None}),
            ("charge.refunded", {"object": "charge", "id": "ch_1", "payment_intent": "pi_9"}),
        ],
    )
    def test_it_finds_refunds_of_a_charge(self, kind: str, about: dict[str, Any]) -> None:
        RefundFactory.create(payment_id="ch_1")
        assert post(event(kind, **about)) == 200
        assert due()

    @pytest.mark.parametrize(
        ("kind", "about"),
        [
            ("refund.updated", {"id": "re_9", "payment_intent": "pi_9"}),
            ("refund.updated", {"id": None, "payment_intent": None}),
            ("refund.updated", {"id": {}, "payment_intent": [], "metadata": None}),
            ("charge.refunded", {"object": "charge", "payment_intent": None}),
            ("charge.refunded", {"object": "charge", "id": "ch_9", "payment_intent": None}),
            ("refund.failed", {"id": "a\0", "metadata": {"idempotency_key": "b\0"}}),
            ("refund.failed", {"id": "\ud800", "payment_intent": "\ud800"}),
            ("customer.created", {"object": "customer"}),
        ],
    )
    def test_what_speaks_of_nothing_known_changes_nothing(
        self, kind: str, about: dict[str, Any]
    ) -> None:
        RefundFactory.create(payment_id="pi_known")
        assert post(event(kind, **about)) == 200
        assert not due()


class TestFromStripe:
    def test_a_refund_that_fails_later_reaches_a_person(
        self, live_server: Any, settings: Any
    ) -> None:
        with running(webhook_url=live_server.url + PATH, webhook_secret=SECRET) as stripe:
            settings.STRIPE_API_BASE = stripe.url
            payment = stripe.payment(amount=15_000, currency="eur")
            asked = cancelled(1, "BK-1", paymentId=payment, amount=60)
            inbox.process(CONSUMERS["payment-gateway.booking-cancelled"], deliveries(asked))
            wait_until(lambda: stripe.webhooks_sent == 2, what="webhooks of creation")
            row = Refund.objects.get()
            assert row.idempotency_key == idempotency_key("BK-1", payment)
            stripe.change_refund(row.stripe_refund_id or "", status="failed")
            wait_until(lambda: stripe.webhooks_sent == 4, what="webhooks of failure")
            tasks.attempt(row.pk)
        row.refresh_from_db()
        assert (row.status, row.stripe_status, row.needs_review) == ("completed", "failed", True)

    def test_an_account_of_an_old_version_tells_it_in_its_own_way(
        self, live_server: Any, settings: Any
    ) -> None:
        url = live_server.url + PATH
        with running(
            webhook_url=url, webhook_secret=SECRET, webhook_version="2022-11-15"
        ) as stripe:
            settings.STRIPE_API_BASE = stripe.url
            payment = stripe.payment(amount=15_000, currency="eur")
            asked = cancelled(1, "BK-1", paymentId=payment, amount=60)
            inbox.process(CONSUMERS["payment-gateway.booking-cancelled"], deliveries(asked))
            Refund.objects.update(next_attempt_at=None)
            stripe.change_refund(Refund.objects.get().stripe_refund_id or "", status="failed")
            wait_until(due, what="charge.refund.updated has come")
