"""What a cancellation asks to be refunded, read from its event and held against an earlier one."""

from decimal import Decimal
from typing import NamedTuple

from booking_platform.contract.events import BookingCancelled
from booking_platform.messaging.rules import INVALID, Refused
from booking_platform.money import UnusableAmount, hundredths, minor_units
from payments.models import WHOLE_BOOKING, Refund


class Step(NamedTuple):
    """A step of a booking's life: how many seats it keeps, and whether the event said so."""

    seats_remaining: int
    named: bool
    revision: int | None = None  # after a change a booking may come to a number of seats again

    def is_surely(self, refund: Refund) -> bool:
        """Return whether a refund is for just this step, and not for one like it."""
        return self.named and refund.step_named and self.revision == refund.revision


class Wish(NamedTuple):
    """What a cancellation wants to be refunded."""

    payment_id: str
    amount: Decimal  # in major units, exactly
    currency: str  # empty: the payment's own

    def __str__(self) -> str:
        if not self.payment_id:
            return "nothing"
        if not self.currency:
            return f"{self.amount}, in the currency of payment {self.payment_id!r}"
        return f"{self.amount} {self.currency.upper()} of payment {self.payment_id!r}"

    @property
    def amount_minor(self) -> int | None:
        """The amount in minor units; none where that depends on the payment."""
        return minor_units(self.amount, self.currency) if self.currency else None

    def is_that_of(self, refund: Refund) -> bool:
        """Return whether a refund of the same payment and step is for just this."""
        return self.amount == refund.asked and self.currency in ("", refund.currency)


NOTHING = Wish("", Decimal(0), "")


def step_of(payload: BookingCancelled) -> Step:
    """Return which step a cancellation is; one that names none is of the whole booking."""
    if payload.seats_remaining is None:
        return Step(WHOLE_BOOKING, named=False, revision=payload.revision)
    return Step(payload.seats_remaining, named=True, revision=payload.revision)


def asked_for(payload: BookingCancelled) -> Wish | Refused:
    """Return what a cancellation asks for, exactly, or what is wrong with it."""
    payment, amount = payload.payment_id, payload.amount
    if amount is not None and amount < 0:
        return _invalid(f"payload.amount is {amount}: it must not be negative")
    if not amount and (amount == 0 or not payment):
        return NOTHING
    if amount is None:
        # Stripe would refund all of it.
        return _invalid(f"payload.amount is missing, but payload.paymentId is {payment!r}")
    if not payment:
        return _invalid(f"payload.paymentId is missing, but payload.amount is {amount}")
    currency = (payload.currency or "").lower()
    try:
        if currency:
            minor_units(amount, currency)
        return Wish(payment, hundredths(amount), currency)
    except UnusableAmount as error:
        return _invalid(str(error))


def _invalid(detail: str) -> Refused:
    return Refused(INVALID, detail)
