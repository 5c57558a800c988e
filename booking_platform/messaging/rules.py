"""What a consumer is: a rule, what the rule answers about each event, and the registry of consumers.

An app registers its consumers with ``@consumes`` (``registration.py``). Everything else about them
(exchange bindings, queues, dead letters, Celery routes, metrics) is derived from the registry here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.db.models import TextChoices

from booking_platform.contract.announcing import Announced
from booking_platform.contract.envelope import Event, Payload

LONGEST_REASON, LONGEST_OUTCOME, LONGEST_QUEUE = 30, 50, 100  # letters that the columns hold
LEASED_TASKS = (".attempt", ".sweep")  # how the names of the tasks that follow from @leased end


@dataclass(frozen=True)
class Reason:
    """Why events are parked. The code is stored and counted, the rest is for the staff."""

    code: str
    meaning: str
    advice: str = ""  # what a person can do about it
    ours: bool = False  # whether the fault is the platform's: then the detail is not told outside

    def __str__(self) -> str:
        return self.code


REASONS: dict[str, Reason] = {}  # by code


def reason(code: str, meaning: str, advice: str = "", *, ours: bool = False) -> Reason:
    """Register a reason for parking events, beside the code that refuses them.

    Raises:
        ImproperlyConfigured: another reason has the code, or it is too long to be stored.
    """
    if code in REASONS:
        raise ImproperlyConfigured(f"The reason {code!r} is registered twice.")
    if len(code) > LONGEST_REASON:
        raise ImproperlyConfigured(f"The reason {code!r} has more than {LONGEST_REASON} letters.")
    REASONS[code] = Reason(code, meaning, advice, ours)
    return REASONS[code]


INVALID = reason(
    "invalid",
    "a field is missing, of the wrong type or out of bounds",
    "Edit it and replay it here, or have the producer publish it anew, under a new event id.",
)
DIFFERS = reason(
    "differs",
    "asks for something else than an earlier event about the same thing",
    "Find out which of the two is right. Replaying this one changes nothing by itself.",
)

AMBIGUOUS = reason(
    "ambiguous",
    "repeats an earlier event, or says that the same has happened once more",
    "If it is a repeat, discard it. If it is another step, the producer must publish it under a new "
    "event id with a seatsRemaining that no step had before; where there is none, do by hand what it "
    "asks for.",
)


class Applied(NamedTuple):
    """An event that took effect, if only by changing nothing.

    ``then`` is called after the commit and before the message is acknowledged. It may call the
    world outside. What it must achieve has to be stored with the event, since the process can die
    before the call. ``announces`` is stored in the same transaction, and published after it.
    """

    outcome: str
    then: Callable[[], object] | None = None
    announces: Sequence[Announced] = ()


@dataclass(frozen=True)
class Refused:
    """An event that a rule can't apply: it is parked, and has no effect."""

    reason: Reason
    detail: str


Result = Applied | Refused


class EventRefused(Exception):
    """An event that was applied by hand has no effect; the message says why."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.reason}: {refused.detail}")
        self.refused = refused


class Rule(Protocol):
    """What a consumer does with events that it has not seen before, inside their transaction.

    Return a result for each event, in the order of the events. With ``lock`` the rule must take
    row locks before it reads, so that it can't lose a race.

    Raises:
        LostRace: something changed since it was read; the transaction is done again.
    """

    def __call__(self, events: Sequence[Event], *, lock: bool) -> Sequence[Result]: ...


class LostRace(Exception):
    """Another transaction changed the row first."""

    def __init__(self, resource_type: str, **context: Any) -> None:
        super().__init__(resource_type, context)
        self.resource_type = resource_type
        self.context = context


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """One event queue, and the rule that applies each of its events once."""

    queue: str
    routing_key: str
    payload: type[Payload]
    uses: tuple[str, ...] | None  # the optional fields that the rule reads; none: all of them
    batch: int  # the most events of one transaction: many for a database, 1 for a network
    rule: Rule
    task: str  # the name of the Celery task that takes a group of events
    task_queue: str  # Celery's queue: the workers that serve it (`-Q`) take these events too
    usual_outcome: TextChoices  # claimed with the event: only the others need a second write
    requires: Mapping[str, str]  # settings that it can't do without, and what to set them to
    partition_by: str | None  # the field of the payload by which events are spread over partitions
    replay_permission: (
        str | None
    )  # of Django: who decides about its dead letters needs this one too

    @property
    def outcomes(self) -> dict[str, str]:
        """Return what each outcome of this consumer means."""
        return {str(value): str(meaning) for value, meaning in type(self.usual_outcome).choices}


CONSUMERS: dict[str, Consumer] = {}  # by event queue


def register(consumer: Consumer) -> None:
    """Add a consumer to the registry.

    Raises:
        ImproperlyConfigured: something about it can't be stored, its queue or its name is taken, or
            its routing key carries another event.
    """
    if problem := next(_problems(consumer), ""):
        raise ImproperlyConfigured(f"{consumer.task}: {problem}.")
    CONSUMERS[consumer.queue] = consumer


def _problems(consumer: Consumer) -> Iterator[str]:
    queue, key, others = consumer.queue, consumer.routing_key, CONSUMERS.values()
    event_type, carried = consumer.payload, event_types().get(key, consumer.payload)
    if queue in CONSUMERS:
        yield f"the queue {queue!r} has the consumer {CONSUMERS[queue].task} already"
    if carried.__name__ != event_type.__name__:
        yield f"the routing key {key!r} carries {carried.__name__}, not {event_type.__name__}"
    if len(queue) > LONGEST_QUEUE:
        yield f"the queue {queue!r} has more than {LONGEST_QUEUE} letters"
    if unknown := set(consumer.uses or ()) - set(event_type.__struct_fields__):
        yield f"uses names {min(unknown)!r}, which {event_type.__name__} does not have"
    if consumer.partition_by and consumer.partition_by not in event_type.__struct_fields__:
        yield f"partition_by is {consumer.partition_by!r}, which {event_type.__name__} does not have"
    if consumer.batch < 1:
        yield f"batch is {consumer.batch}: it must be 1 or more"
    if not isinstance(consumer.usual_outcome, TextChoices):
        yield f"usual_outcome is {consumer.usual_outcome!r}: it must be one of a TextChoices"
    elif wrong := [each for each in consumer.outcomes if not 0 < len(each) <= LONGEST_OUTCOME]:
        yield f"the outcome {wrong[0]!r} must have 1 to {LONGEST_OUTCOME} letters"
    if consumer.replay_permission is not None and "." not in consumer.replay_permission:
        yield f"replay_permission is {consumer.replay_permission!r}: it must be 'app.codename'"
    if consumer.task in {each.task for each in others} or consumer.task.endswith(LEASED_TASKS):
        yield "another task of the app has that name, or @leased may give it to one"
    beside = partitioned().get(consumer.task_queue, {}).get(key)
    if consumer.partition_by and beside:  # in a partition, the routing key tells whose an event is
        yield f"partition_by: the partitions have {key!r} for {beside.task} already"


SWEEPS: list[str] = []  # the Celery tasks that beat sends every SWEEP_SECONDS


def register_sweep(task: str) -> None:
    """Add a task to those that beat sends.

    Raises:
        ImproperlyConfigured: it is there already.
    """
    if task in SWEEPS:
        raise ImproperlyConfigured(f"{task} is registered twice: an app has one leased model.")
    SWEEPS.append(task)


def partitioned() -> dict[str, dict[str, Consumer]]:
    """Return the consumers whose events can be spread over partitions, by app and routing key."""
    found: dict[str, dict[str, Consumer]] = {}
    for consumer in CONSUMERS.values():
        if consumer.partition_by:
            found.setdefault(consumer.task_queue, {})[consumer.routing_key] = consumer
    return found


def event_types() -> dict[str, type[Payload]]:
    """Return the type of event that each routing key carries."""
    return {each.routing_key: each.payload for each in CONSUMERS.values()}


def meanings() -> dict[str, str]:
    """Return what each outcome of an event means, in the words of the apps."""
    return {
        outcome: meaning
        for consumer in CONSUMERS.values()
        for outcome, meaning in consumer.outcomes.items()
    }
