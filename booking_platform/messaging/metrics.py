"""Counters for Prometheus, shared by all processes of this machine (multiprocess mode)."""

from prometheus_client import Counter

OPTIMISTIC_LOCK_CONFLICTS = Counter(
    "optimistic_lock_conflicts_total",
    "Writes that found another version than they had read, and were done again.",
    ["resource_type"],
)
DUPLICATE_EVENTS = Counter(
    "duplicate_events_total",
    "Events that had been processed before, and so had no effect.",
    ["event_type"],
)
EVENTS = Counter(
    "events_total",
    "Events committed, by their outcome; parked ones count as parked.",
    ["consumer", "outcome"],
)
DEAD_LETTERS = Counter(
    "dead_letters_parked_total",
    "Events parked for a person.",
    ["queue", "reason"],
)
PROCESSED_EVENTS_DELETED = Counter(
    "processed_events_deleted_total",
    "Records of processed events that outlived their retention.",
)
