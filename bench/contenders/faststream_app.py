"""The consumer as a service of FastStream with SQLAlchemy's asynchronous ORM on asyncpg.

``python -m bench.contenders.faststream_app`` is one process of it. An event is one transaction: claimed in
``processed_events`` first, its tour locked, the reservation stored; the message is acknowledged after the
commit. ``PREFETCH`` messages are worked on at once, each with a connection of its own.
"""

import os
from datetime import UTC, datetime

import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitMessage, RabbitQueue
from pydantic import BaseModel
from sqlalchemy import ForeignKey, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import DateTime

QUEUE = "bench-faststream"
PREFETCH = 20

broker = RabbitBroker(
    os.environ["RABBITMQ_URL"], default_channel=Channel(prefetch_count=PREFETCH), logger=None
)
engine = create_async_engine(
    "postgresql+asyncpg://" + os.environ["DATABASE_URL"].partition("://")[2],
    pool_size=PREFETCH,
    max_overflow=0,
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Payload(BaseModel):
    bookingId: str  # noqa: N815  (the contract's name)
    tourId: int  # noqa: N815
    seatsBooked: int  # noqa: N815


class Event(BaseModel):
    eventId: str  # noqa: N815
    eventType: str  # noqa: N815
    timestamp: datetime
    payload: Payload


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True)}


class ProcessedEvent(Base):
    __tablename__ = "processed_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    consumer: Mapped[str]
    event_type: Mapped[str]
    aggregate_id: Mapped[str]
    fingerprint: Mapped[str]
    outcome: Mapped[str]
    occurred_at: Mapped[datetime]
    processed_at: Mapped[datetime]


class Tour(Base):
    __tablename__ = "tours"
    id: Mapped[int] = mapped_column(primary_key=True)
    available_seats: Mapped[int]
    reserved_seats: Mapped[int]
    optimistic_lock_version: Mapped[int]
    updated_at: Mapped[datetime]


class Reservation(Base):
    __tablename__ = "reservations"
    id: Mapped[int] = mapped_column(primary_key=True)
    booking_id: Mapped[str]
    tour_id: Mapped[int] = mapped_column(ForeignKey("tours.id"))
    seats: Mapped[int]
    state: Mapped[str]
    created_event_id: Mapped[str]
    cancelled_event_id: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


@broker.subscriber(
    RabbitQueue(QUEUE, queue_type=QueueType.QUORUM, durable=True), ack_policy=AckPolicy.MANUAL
)
async def booking_created(event: Event, message: RabbitMessage) -> None:
    try:
        async with sessions.begin() as session:
            await apply(session, event)
    except Exception:
        await message.nack()
        raise
    await message.ack()


async def apply(session: AsyncSession, event: Event) -> None:
    """Apply an event in the transaction of a session; a duplicate has no effect."""
    now = datetime.now(UTC)
    payload = event.payload
    claim = insert(ProcessedEvent).values(
        event_id=event.eventId,
        consumer=QUEUE,
        event_type=event.eventType,
        aggregate_id=payload.bookingId,
        fingerprint="",
        outcome="reserved",
        occurred_at=event.timestamp,
        processed_at=now,
    )
    claimed = await session.execute(claim.on_conflict_do_nothing().returning(ProcessedEvent.id))
    claim_id = claimed.scalar()
    if claim_id is None:
        return
    tour = await session.scalar(select(Tour).where(Tour.id == payload.tourId).with_for_update())
    if tour is None:
        raise LookupError(f"There is no tour {payload.tourId}.")
    if tour.available_seats < payload.seatsBooked:
        (await session.get_one(ProcessedEvent, claim_id)).outcome = "rejected"
        return
    tour.available_seats -= payload.seatsBooked
    tour.reserved_seats += payload.seatsBooked
    tour.optimistic_lock_version += 1
    tour.updated_at = now
    session.add(
        Reservation(
            booking_id=payload.bookingId,
            tour_id=tour.id,
            seats=payload.seatsBooked,
            state="reserved",
            created_event_id=event.eventId,
            created_at=now,
            updated_at=now,
        )
    )


if __name__ == "__main__":
    uvloop.run(FastStream(broker).run())
