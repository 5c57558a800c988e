"""The kernel: from a message of the broker to a committed transaction, once in effect.

It knows queues, claims, leases and dead letters. What the events mean is known to the apps alone.
"""
