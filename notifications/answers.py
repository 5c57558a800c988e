"""What came of handing a mail over to a mail server, as values."""

from dataclasses import dataclass
from enum import Enum

MAIL = "MAIL"
MESSAGE = "the message"  # the step at which it, or a part of it, is on its way


class Verdict(Enum):
    """What is known of a mail after it was handed over."""

    SENT = "sent"
    AGAIN = "not sent, to be tried again"
    REFUSED = "refused for good"
    UNCERTAIN = "may have been sent"


@dataclass(frozen=True)
class Answer:
    """What a mail server answered at which step, or did not, and what that proves."""

    verdict: Verdict
    step: str
    code: int | None = None
    said: str = ""  # for staff; no address is in it

    def __str__(self) -> str:
        said = " ".join(str(part) for part in (self.code, self.said) if part)
        return f"{self.step}: {said}" if said else self.step
