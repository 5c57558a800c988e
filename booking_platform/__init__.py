"""A tour operator's booking events, applied exactly once in effect."""

from booking_platform.celery import app as celery_app

__all__ = ["celery_app"]
