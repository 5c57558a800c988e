"""E-mails. Its queue is declared and keeps every cancellation; the consumer is not built yet."""
