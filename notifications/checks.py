"""System checks of a deployment: ``manage.py check --deploy``."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

REQUIRED = {
    "SMTP_HOST": "your mail server, such as smtp.example.com",
    "EMAIL_FROM": "the sender's address, such as Example Tours <noreply@example.com>",
}


@register(deploy=True)
def mail_is_set_up(**_: Any) -> list[CheckMessage]:
    """Name what production lacks in order to send mail."""
    return [
        Error(
            f"{name} is not set: no worker takes up e-mails without it.",
            hint=f"Set it to {purpose}.",
            id="notifications.E001",
        )
        for name, purpose in REQUIRED.items()
        if not getattr(settings, name)
    ]
