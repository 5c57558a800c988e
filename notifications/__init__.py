"""E-mails: a customer is told once that a booking was cancelled."""
