"""The admin's pages of what the kernel keeps."""

from booking_platform.operations.dead_letters import DeadLetterAdmin
from booking_platform.operations.processed_events import ProcessedEventAdmin

__all__ = ["DeadLetterAdmin", "ProcessedEventAdmin"]
