"""Pauses between attempts: exponential, with full jitter.

Full jitter (a pause drawn evenly from zero to the exponential bound) spreads contenders best:
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    base: float  # seconds
    maximum: float  # seconds

    def pause(self, attempt: int) -> float:
        """Draw the pause after the given attempt, counted from 1, in seconds."""
        return random.uniform(0, min(self.maximum, self.base * 2.0 ** min(attempt - 1, 62)))
