"""How a cancellation e-mail is worded: pure, apart from its templates and catalogs.

English is the language of the templates. Every other language is one catalog,
``locale/LANGUAGE/LC_MESSAGES/django.mo``, here or in one of ``LOCALE_PATHS``. To add one, or to bring
one up to date after a template changed, in this folder (the first command needs GNU gettext)::

    django-admin makemessages --locale nl --no-location
    pybabel compile --directory locale --domain django

In between translate the ``.po`` file, and delete its marks ``fuzzy``: what has them is left out. Both
files belong into the repository.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from babel import Locale, UnknownLocaleError
from babel.numbers import format_currency
from django.conf import settings
from django.template.loader import render_to_string
from django.utils import translation

from booking_platform.contract.events import BookingCancelled
from booking_platform.money import CURRENCIES, UnusableAmount, minor_units

SOURCE = "en"  # the language of the templates: it needs no catalog
FALLBACK = "fr"  # for whom we don't know, or whose language isn't on offer

LONGEST_TOUR = 200  # characters that are shown; an event may have 10,000
LONGEST_BOOKING = 255  # as an event may have, so never cut

CATALOGS = Path(__file__).parent / "locale"
TEMPLATES = "notifications/cancellation"

# What would reorder the text around it (UAX 9), or isn't seen; joiners are part of scripts and
# emoji, and stay.
_DROPPED = re.compile(
    "[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_SPACE = re.compile("[\\s\x00-\x1f\x7f-\x9f]+")
_HALF = re.compile("[\ud800-\udfff]")  # of a character: what is left where UTF-16 is cut
# What mail programs make links of, without being asked, has one of these in front of more of it. A
# zero-width non-joiner on both sides hides it from them, and where a program looks past that, browsers
# refuse it in a host's name (UTS 46, CheckJoiners). A word joiner, which is also in use against links,
# they drop, and follow the link.
_LINKING = re.compile(r"[.:@\\\u3002\uff0e\uff61](?=\S)")
_NON_JOINER = "\u200c"
_LETTER_BESIDE_DIGIT = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")


class Letter(NamedTuple):
    """An e-mail's words. The subject is one line and holds nothing that an event said."""

    language: str
    subject: str
    text: str
    html: str


def compose(payload: BookingCancelled) -> Letter:
    """Return what a customer is told, in their language, with amounts as their region writes them.

    Whatever an event says can be shown: it is shown on one line, cut where it is too long, and
    never as markup or as a link. Of money the letter speaks only if a refund can be expected, and of
    the seats that remain only if the event does.
    """
    language, locale = _chosen(payload.locale or FALLBACK)
    with translation.override(language):
        subject = _render("subject.txt", {"remaining": payload.seats_remaining})
        facts = {
            "subject": subject,
            "language": language,
            "direction": locale.text_direction,
            "start": "right" if locale.text_direction == "rtl" else "left",
            "booking": _displayed(payload.booking_id, LONGEST_BOOKING),
            "tour": _displayed(payload.tour_name or "", LONGEST_TOUR),
            "seats": payload.seats_released,
            "remaining": payload.seats_remaining,
            "refunded": _refundable(payload),
            "refund": _figure(payload, locale),
        }
        text, html = _render("body.txt", facts), _render("body.html", facts)
    return Letter(language, subject, f"{text}\n", f"{html}\n")


def languages() -> frozenset[str]:
    """Return the languages on offer, as language tags in lower case."""
    folders = (CATALOGS, *map(Path, settings.LOCALE_PATHS))
    files = (file for folder in folders for file in folder.glob("*/LC_MESSAGES/django.mo"))
    return frozenset((SOURCE, *(translation.to_language(file.parts[-3]) for file in files)))


def offered(locale: str) -> str | None:
    """Return the language on offer for a locale such as fr-CA or en_GB; None if there is none."""
    on_offer = languages()
    return next((tag for tag in _shorter_and_shorter(locale) if tag in on_offer), None)


def _chosen(wanted: str) -> tuple[str, Locale]:
    language = offered(wanted)
    return (language, _locale(wanted)) if language else (FALLBACK, _locale(FALLBACK))


def _locale(wanted: str) -> Locale:
    """Return how numbers are written, and in which direction text goes."""
    for tag in _shorter_and_shorter(wanted):
        with suppress(ValueError, UnknownLocaleError):
            return Locale.parse(tag, sep="-")
    return Locale(SOURCE)


def _shorter_and_shorter(locale: str) -> Iterator[str]:
    """Yield a locale as a tag, then without its last part, and so on (RFC 4647, 3.4)."""
    parts = re.split("[-_]", re.split("[.@]", locale.strip().lower())[0])  # fr_CA.UTF-8 is fr-ca
    for length in range(len(parts), 0, -1):
        yield "-".join(parts[:length])


def _refundable(payload: BookingCancelled) -> bool:
    """Return whether a refund is asked for that can be made exactly as it is asked for.

    What can't waits for a person: nothing is promised then. Where the event names no currency, that
    of the payment is meant, whichever it is.
    """
    amount, currency = payload.amount, payload.currency
    if not payload.payment_id or amount is None:
        return False
    meant = CURRENCIES if currency is None else (currency,)
    return any(_exact(amount, currency) for currency in meant)


def _exact(amount: Decimal, currency: str) -> bool:
    try:
        minor_units(amount, currency)
    except UnusableAmount:
        return False
    return True


def _figure(payload: BookingCancelled, locale: Locale) -> str:
    """Return the amount that is refunded, to the last digit; empty if none can be named."""
    amount, currency = payload.amount, payload.currency
    if amount is None or currency is None or not _refundable(payload):
        return ""
    written = format_currency(amount, currency.upper(), locale=locale, decimal_quantization=False)
    return _LETTER_BESIDE_DIGIT.sub("\N{NO-BREAK SPACE}", written)  # "CHF 5": UTS 35, 3, 4.2


def _displayed(text: str, longest: int) -> str:
    """Return foreign text as one line of bounded length that does nothing to what is around it.

    It can't reorder that, and no mail program makes a link of it.
    """
    whole = _HALF.sub("\N{REPLACEMENT CHARACTER}", text)
    line = _SPACE.sub(" ", _DROPPED.sub("", whole)).strip()
    shown = line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"
    return _LINKING.sub(rf"{_NON_JOINER}\g<0>{_NON_JOINER}", shown)


def _render(template: str, facts: dict[str, Any]) -> str:
    return render_to_string(f"{TEMPLATES}/{template}", facts).strip()
