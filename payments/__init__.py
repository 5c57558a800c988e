"""Refunds: a cancelled booking's payment goes back to the customer, once."""
