"""The command that compares store and Stripe, and refunds for it to compare."""

from io import StringIO
from typing import Any
from uuid import uuid4

from django.core.management import CommandError, call_command

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import clock, leases
from payments import stripe_gateway, tasks
from payments.answers import StripeRefund
from payments.models import Refund
from payments.reconciliation import Kind
from tests.factories import RefundFactory, past

Status = Refund.Status


def run(*arguments: str) -> tuple[int, str]:
    """Run the command; return the exit status and what was printed, or why it could not compare."""
    output = StringIO()
    try:
        call_command("reconcile_refunds", *arguments, stdout=output)
    except SystemExit as end:
        return int(end.code or 0), output.getvalue()
    except CommandError as error:
        return error.returncode, output.getvalue() + str(error)
    return 0, output.getvalue()


def kinds(said: str) -> list[str]:
    names = tuple(f"{kind}: " for kind in Kind)
    return [line.partition(":")[0] for line in said.splitlines() if line.startswith(names)]


def refunded(stripe: Sandbox, booking: str = "BK-1", **columns: Any) -> Refund:
    """Refund a booking as workers do; then set columns, behind everybody's back."""
    payment = stripe.payment(amount=50_000, currency="eur")
    row = RefundFactory.create(
        booking_id=booking, payment_id=payment, first_sent_at=None, next_attempt_at=past()
    )
    tasks.attempt(row.pk)
    change(row, **columns)
    assert row.stripe_status == "succeeded" or columns
    return row


def change(row: Refund, **columns: Any) -> None:
    if columns:
        Refund.objects.filter(pk=row.pk).update(**columns)
    row.refresh_from_db()


def in_the_dashboard(payment: str, amount: int = 1_000, /, **metadata: str) -> StripeRefund:
    request = {"payment_intent": payment, "amount": amount, "metadata": metadata}
    made = stripe_gateway.send(request, str(uuid4()))
    assert isinstance(made, StripeRefund)
    return made


def under_our_key(row: Refund, payment: str | None = None) -> StripeRefund:
    """Refund at Stripe with the key of a booking in the metadata."""
    noted = {"idempotency_key": row.idempotency_key, "booking_id": row.booking_id}
    return in_the_dashboard(payment or row.payment_id, **noted)


def all_columns() -> list[dict[str, Any]]:
    return [dict(columns) for columns in Refund.objects.order_by("pk").values()]


def sweep() -> None:
    for pk in list(leases.due(Refund.objects.all(), clock.now()).values_list("pk", flat=True)):
        tasks.attempt(pk)
