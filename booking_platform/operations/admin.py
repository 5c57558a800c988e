"""The admin's pages of what the kernel keeps, and of the people who may use the admin."""

from booking_platform.operations.dead_letters import DeadLetterAdmin
from booking_platform.operations.people import Roles, Users
from booking_platform.operations.processed_events import ProcessedEventAdmin

__all__ = ["DeadLetterAdmin", "ProcessedEventAdmin", "Roles", "Users"]
