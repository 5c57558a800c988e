"""System checks of a deployment: ``manage.py check --deploy``."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004

REQUIRED = {
    "SMTP_HOST": "your mail server, such as smtp.example.com",
    "EMAIL_FROM": "the sender's address, such as Example Tours <noreply@example.com>",
}


@register(deploy=True)
def mail_is_set_up(**_: Any) -> list[CheckMessage]:
    """Return what production lacks in order to send mail."""
    return [
        Error(
            f"{name} is not set: no worker takes up e-mails without it.",
            hint=f"Set it to {purpose}.",
            id="notifications.E001",
        )
        for name, purpose in REQUIRED.items()
        if not getattr(settings, name)
    ]


@register(deploy=True)
def leases_outlast_the_mail_server(**_: Any) -> list[CheckMessage]:
    """Check that a lease outlasts the message and its answer."""
    longest = 2 * settings.SMTP_TIMEOUT_SECONDS
    if longest < settings.LEASE_SECONDS:
        return []
    return [
        Warning(
            f"LEASE_SECONDS is {settings.LEASE_SECONDS:g}, but a mail server may take "
            f"{longest:g} s over a message: e-mails of live workers are taken for uncertain.",
            hint="Raise LEASE_SECONDS or lower SMTP_TIMEOUT_SECONDS.",
            id="notifications.W001",
        )
    ]
