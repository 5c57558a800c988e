"""E-mails: a customer is told once for each step in which a booking was cancelled."""
