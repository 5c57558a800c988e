"""Whole worlds of bookings, each with a story whose outcome is known by construction."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from payments.answers import StripeRefund
from payments.keys import idempotency_key
from payments.models import Refund
from payments.reconciliation import Kind, Mending, Related, UnderWay, compare
from tests.integration.comparing import Status

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class World:
    rows: list[Refund] = field(default_factory=list)
    listed: list[StripeRefund] = field(default_factory=list)

    def row(self, booking: str, **columns: Any) -> Refund:
        number = len(self.rows) + 1
        known: dict[str, Any] = {
            "pk": number, "booking_id": booking, "payment_id": f"pi_{booking}",
            "amount_minor": 15_000, "currency": "eur", "status": Status.COMPLETED,
            "stripe_refund_id": f"re_{booking}", "stripe_status": "succeeded",
            "first_sent_at": NOW - timedelta(days=1), "updated_at": NOW - timedelta(hours=1),
        }  # fmt: skip
        self.rows.append(Refund(**{**known, **columns}))
        return self.rows[-1]

    def refund(self, booking: str, **fields: Any) -> None:
        known: dict[str, Any] = {
            "refund_id": f"re_{booking}", "status": "succeeded", "amount_minor": 15_000,
            "currency": "eur", "payment_id": f"pi_{booking}", "key": idempotency_key(booking, f"pi_{booking}"),
            "created_at": NOW, "record": {"metadata": {"booking_id": booking}},
        }  # fmt: skip
        self.listed.append(StripeRefund(**{**known, **fields}))


Story = Callable[[World, str, dict[str, Any]], set[tuple[Kind, Mending]]]
AT_ONCE = {"stripe_refund_id": None, "stripe_status": ""}


def agrees(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
    world.row(booking, **hand)
    world.refund(booking)
    return set()


def foreign(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
    world.refund(booking, key="", refund_id=f"re_foreign_{booking}")
    return set()


def waits(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
    world.row(booking, status=Status.IN_PROGRESS, first_sent_at=None, **AT_ONCE, **hand)
    return set()


def other_contents(name: str, value: Any, kind: Kind) -> Story:
    def story(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
        world.row(booking, **hand)
        world.refund(booking, **{name: value})
        return set() if hand else {(kind, Mending.ATTEMPT)}

    return story


def not_recorded(status: Status, mending: Mending, **columns: Any) -> Story:
    def story(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
        world.row(booking, status=status, **AT_ONCE, **columns, **hand)
        world.refund(booking, key=f"{idempotency_key(booking, f'pi_{booking}')}:2")
        return set() if hand else {(Kind.EXTRA, mending)}

    return story


def never_sent(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
    """The store is older than Stripe, as after a restore: only a worker's lease excuses that."""
    world.row(booking, status=Status.IN_PROGRESS, first_sent_at=None, **AT_ONCE, **hand)
    world.refund(booking)
    leased = hand.get("lease_until", NOW) > NOW
    return set() if leased else {(Kind.EXTRA, Mending.LOOK)}


def second(**fields: Any) -> Story:
    def story(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
        agrees(world, booking, hand)
        world.refund(booking, refund_id=f"re_second_{booking}", **fields)
        return set() if hand else {(Kind.EXTRA, Mending.PERSON)}

    return story


def no_row(world: World, booking: str, hand: dict[str, Any]) -> set[tuple[Kind, Mending]]:
    world.refund(booking)
    return {(Kind.EXTRA, Mending.PERSON)}


STORIES: list[Story] = [
    agrees,
    foreign,
    waits,
    never_sent,
    no_row,
    other_contents("amount_minor", 1, Kind.AMOUNT),
    other_contents("currency", "usd", Kind.AMOUNT),
    other_contents("payment_id", "pi_elsewhere", Kind.PAYMENT),
    other_contents("status", "failed", Kind.STATUS),
    not_recorded(Status.IN_PROGRESS, Mending.LOOK),
    not_recorded(Status.FAILED, Mending.LOOK),
    not_recorded(Status.FAILED, Mending.ATTEMPT, settled_at=NOW),
    second(),
    second(payment_id="pi_elsewhere"),
    second(key=""),
    second(key="another-shop"),
]
HANDS: list[dict[str, Any]] = [
    {},
    {"lease_until": NOW + timedelta(minutes=3)},
    {"lease_until": NOW - timedelta(minutes=3)},
    {"next_attempt_at": NOW},
    {"next_attempt_at": NOW + timedelta(minutes=29)},
]


class TestCompare:
    @given(
        st.lists(st.tuples(st.sampled_from(STORIES), st.sampled_from(HANDS)), max_size=30),
        st.randoms(use_true_random=False),
    )
    def test_it_finds_in_a_whole_world_what_was_put_there(
        self, stories: list[tuple[Story, dict[str, Any]]], chance: Any
    ) -> None:
        world = World()
        expected = {}
        for number, (story, hand) in enumerate(stories):
            expected[f"BK-{number}"] = story(world, f"BK-{number}", hand)
        chance.shuffle(world.listed)
        related = Related(chance.sample(world.rows, len(world.rows)))
        found: dict[str, set[tuple[Kind, Mending]]] = {booking: set() for booking in expected}
        for one in world.listed:
            for finding in compare(one, related.to(one), NOW):
                if isinstance(finding, UnderWay):
                    assert finding.row.lease_until or finding.row.next_attempt_at
                    continue
                booking = one.record["metadata"]["booking_id"]
                assert finding.row is None or finding.row.booking_id == booking
                assert repr(booking) in finding.words
                found[booking].add((finding.kind, finding.mending))
        assert found == expected

    @given(st.text(), st.text(), st.text())
    def test_its_words_are_one_printable_line(
        self, booking: str, payment: str, status: str
    ) -> None:
        world = World()
        row = world.row(booking, payment_id=payment, stripe_status=status)
        world.refund(booking, status="pending", payment_id="pi_1")
        world.refund(booking, refund_id="re_2", status=status, payment_id=payment)
        found = [each for one in world.listed for each in compare(one, [row], NOW)]
        assert found
        assert all(str(each).isprintable() for each in found)

    def test_of_two_bookings_of_a_payment_the_open_one_answers(self) -> None:
        world = World()
        world.row("BK-1", payment_id="pi_1", settled_at=NOW)
        open_one = world.row("BK-2", payment_id="pi_1")
        world.refund("BK-3", payment_id="pi_1", key="")
        [found] = compare(world.listed[0], world.rows, NOW)
        assert found.row is open_one
