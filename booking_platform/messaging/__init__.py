"""The kernel: events from the broker to a committed transaction, once in effect.

It knows queues, claims and dead letters, and nothing of tours, refunds or mails.
"""
