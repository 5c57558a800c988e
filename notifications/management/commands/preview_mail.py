"""Write a sample of the cancellation e-mail, to be looked at in a mail program or a browser."""

from argparse import ArgumentParser
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.text import slugify

from booking_platform.contract.events import BookingCancelled
from notifications.composing import FALLBACK, compose, languages, offered
from notifications.mailer import as_message
from notifications.models import CancellationEmail


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--locale", default=FALLBACK, help="a language, or a region's: fr, en-GB, fr_CH"
        )
        parser.add_argument("--no-refund", action="store_true", help="as if nothing was paid")
        parser.add_argument(
            "--remaining",
            type=int,
            metavar="SEATS",
            help="as if the event named the seats that the booking keeps; 0: the whole is cancelled",
        )
        parser.add_argument(
            "--folder", type=Path, help="where the files go (default: mail/preview in VAR_DIR)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        locale, remaining = options["locale"], options["remaining"]
        refunded = not options["no_refund"]
        if offered(locale) is None:
            known = ", ".join(sorted(languages()))
            raise CommandError(f"--locale is {locale!r}: give one of {known}, or one's region")
        if remaining is not None and remaining < 0:
            raise CommandError(f"--remaining is {remaining}: give 0 or more")
        folder = options["folder"] or settings.VAR_DIR / "mail" / "preview"
        step = "" if remaining is None else f"-remaining-{remaining}"
        name = f"cancellation-{slugify(locale)}{step}{'' if refunded else '-no-refund'}"
        try:
            sample = _sample(locale, remaining=remaining, refunded=refunded)
            for written in _write(folder / name, sample):
                self.stdout.write(str(written))
        except OSError as error:
            raise CommandError(f"--folder {folder}: {error.strerror}") from error


def _sample(locale: str, *, remaining: int | None, refunded: bool) -> CancellationEmail:
    cancelled = BookingCancelled(
        booking_id="BK-42",
        tour_id=101,
        seats_released=2,
        seats_remaining=remaining,
        payment_id="pi_sandbox_15000_eur_1",
        amount=Decimal("150.00") if refunded else None,
        currency="eur",
        tour_name="Paris City Tour",
        locale=locale,
    )
    letter = compose(cancelled)
    return CancellationEmail(
        booking_id=cancelled.booking_id,
        recipient="traveller@example.com",
        locale=letter.language,
        subject=letter.subject,
        text_body=letter.text,
        html_body=letter.html,
        message_id="<preview@example.com>",
        created_at=timezone.now(),  # noqa: TID251  # needs no database
    )


def _write(path: Path, mail: CancellationEmail) -> tuple[Path, Path]:
    """Store a mail as it is sent, and its HTML alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole, page = path.with_name(f"{path.name}.eml"), path.with_name(f"{path.name}.html")
    message: Any = as_message(mail).message()  # Django's stubs are of its next version
    whole.write_bytes(message.as_bytes(linesep="\r\n"))
    page.write_text(mail.html_body, encoding="utf-8")
    return whole, page
