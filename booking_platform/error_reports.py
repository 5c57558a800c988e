"""Error reports of Django (pages and mails to ``ADMINS``) without secrets and addresses."""

from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter

from booking_platform.confidential import masked
from booking_platform.redaction import without_addresses


class Reporter(ExceptionReporter):
    """Django's report, redacted as a whole.

    Django hides settings by their names. Their values may also be in the environment, which a WSGI
    server adds to the request, in local variables, and in what an error says.
    """

    def get_traceback_html(self) -> SafeString:
        return _redacted(super().get_traceback_html())

    def get_traceback_text(self) -> SafeString:
        return _redacted(super().get_traceback_text())


def _redacted(report: str) -> SafeString:
    return SafeString(without_addresses(masked(report)))
