"""The admin's pages of what the kernel keeps, and of the people who may use the admin."""

from booking_platform.operations.bulk_jobs import BulkJobAdmin
from booking_platform.operations.dead_letters import DeadLetterAdmin
from booking_platform.operations.people import Roles, Users
from booking_platform.operations.processed_events import ProcessedEventAdmin

__all__ = ["BulkJobAdmin", "DeadLetterAdmin", "ProcessedEventAdmin", "Roles", "Users"]
