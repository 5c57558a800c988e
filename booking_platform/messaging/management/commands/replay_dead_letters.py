"""Send dead letters back to the queue that each came from."""

from booking_platform.messaging import dead_letters
from booking_platform.messaging.management.commands._dead_letters import DeadLetterCommand, NotDone
from booking_platform.messaging.models import DeadLetter


class Command(DeadLetterCommand):
    help = __doc__
    verb, done = "replay", "replayed"

    def decide(self, dead_letter: DeadLetter, *, by: str, why: str) -> str:
        try:
            closed = dead_letters.replay(dead_letter, by=by, why=why)
        except dead_letters.NotReplayable as error:
            raise NotDone(str(error)) from error
        return "" if closed else ", and parked again"
