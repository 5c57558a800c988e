"""The admin's pages of what the kernel keeps, and of the people who may use the admin."""

from booking_platform.operations.audit_runs import AuditRunAdmin
from booking_platform.operations.bulk_jobs import BulkJobAdmin
from booking_platform.operations.dead_letters import DeadLetterAdmin
from booking_platform.operations.machinery import HeartbeatAdmin, OutboxAdmin, TallyAdmin
from booking_platform.operations.people import Roles, Users
from booking_platform.operations.processed_events import ProcessedEventAdmin

__all__ = [
    "AuditRunAdmin",
    "BulkJobAdmin",
    "DeadLetterAdmin",
    "HeartbeatAdmin",
    "OutboxAdmin",
    "ProcessedEventAdmin",
    "Roles",
    "TallyAdmin",
    "Users",
]
