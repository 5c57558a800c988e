"""How a cancellation e-mail is worded, in every language that has a catalog."""

import io
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from gettext import GNUTranslations
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any

import pytest
from babel.messages import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from django.utils import translation
from django.utils.html import urlize
from django.utils.translation.template import templatize
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from booking_platform.contract.events import BookingCancelled
from notifications import composing
from notifications.composing import CATALOGS, Letter, compose, languages, offered

TEMPLATES = Path(composing.__file__).parent / "templates" / composing.TEMPLATES
FILES = sorted(CATALOGS.glob("*/LC_MESSAGES/django.po"))
FRENCH_SUBJECT = "Confirmation de votre annulation"
ENGLISH_SUBJECT = "Confirmation of your cancellation"
# As mail programs look for them: a scheme, www, a name with a dot in it, or an address.
LINKED = re.compile(r"\w+:[/\w]|www\.|\w[.。．｡]\w*[^\W\d]|\d\.\d+\.\d|\w@\w|\\\\\w")
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def letter(**fields: Any) -> Letter:
    """Compose for a booking with a refund of 150 euros, in English, but for what is given."""
    usual: dict[str, Any] = {
        "booking_id": "BK-42",
        "tour_id": 101,
        "seats_released": 2,
        "payment_id": "pi_1",
        "amount": Decimal("150.0"),
        "currency": "eur",
        "tour_name": "Paris City Tour",
        "locale": "en",
    }
    return compose(BookingCancelled(**(usual | fields)))


class Page(HTMLParser):
    """What a browser makes of the HTML: its tags, and the rows of details."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attributes)))
        self._open.append(tag)
        if tag == "th":
            self.rows.append(["", ""])

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if "th" in self._open:
            self.rows[-1][0] += data
        elif "bdi" in self._open and self.rows and "p" not in self._open:
            self.rows[-1][1] += data

    @property
    def details(self) -> dict[str, str]:
        return dict(self.rows)


def details(letter: Letter) -> dict[str, str]:
    """Read the details off both versions, which must agree but for the refund."""
    lines = dict(line.split(": ", 1) for line in letter.text.splitlines() if ": " in line)
    assert Page(letter.html).details == {k: v for k, v in lines.items() if k != "Refund"}
    return lines


def marked() -> Iterator[tuple[str | None, str | tuple[str, ...]]]:
    """Yield every message that the templates mark for translation, with its context."""
    for file in TEMPLATES.iterdir():
        code = templatize(file.read_text(), origin=str(file))
        lines = "\n".join(line.strip() for line in code.splitlines())
        source = io.BytesIO(lines.encode())
        for _, message, _, context in extract("python", source, DEFAULT_KEYWORDS):
            yield context, message


def catalog_of(file: Path) -> Catalog:
    with file.open("rb") as source:
        return read_po(source)


def said(compiled: IO[bytes]) -> tuple[dict[Any, str], str]:
    """Return the texts of a compiled catalog, and its rule for plurals; its header holds times too."""
    read = GNUTranslations(compiled)
    texts = read._catalog.items()  # type: ignore[attr-defined]  # no public way lists them all
    return {key: text for key, text in texts if key}, read.info()["plural-forms"]


def messages(catalog: Catalog) -> list[Message]:
    return [message for message in catalog if message.id]


def strings(message: Message) -> tuple[str, ...]:
    return (message.string,) if isinstance(message.string, str) else tuple(message.string or ())


@pytest.fixture
def translate(tmp_path: Path, settings: Any) -> Callable[[str], None]:
    """Put a catalog for a language beside those of the platform: each message in brackets."""

    def add(language: str) -> None:
        catalog = Catalog(locale=language)
        for context, message in marked():
            plural = not isinstance(message, str)
            of_plural = tuple(f"[{message[-1]}]" for _ in range(catalog.num_plurals))
            catalog.add(message, of_plural if plural else f"[{message}]", context=context)
        file = tmp_path / language / "LC_MESSAGES" / "django.mo"
        file.parent.mkdir(parents=True)
        with file.open("wb") as target:
            write_mo(target, catalog)
        settings.LOCALE_PATHS = [tmp_path]

    return add


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parts[-3])
class TestCatalog:
    def test_it_translates_all_that_the_templates_say_and_no_more(self, file: Path) -> None:
        catalog = catalog_of(file)
        assert {(message.context, message.id) for message in messages(catalog)} == set(marked())
        assert not catalog.obsolete

    def test_every_message_is_translated_for_sure(self, file: Path) -> None:
        catalog = catalog_of(file)
        assert not catalog.fuzzy
        for message in messages(catalog):
            assert all(strings(message)), message.id
            assert len(strings(message)) == (catalog.num_plurals if message.pluralizable else 1)
            assert not message.fuzzy, message.id
            assert not list(message.check(catalog)), message.id

    def test_its_compiled_form_says_the_same(self, file: Path) -> None:
        compiled = io.BytesIO()
        write_mo(compiled, catalog_of(file))
        compiled.seek(0)
        with file.with_suffix(".mo").open("rb") as kept:
            assert said(kept) == said(compiled)

    def test_no_other_app_has_other_words_for_it(self, file: Path) -> None:
        with translation.override(translation.to_language(file.parts[-3])):
            for message in messages(catalog_of(file)):
                if not isinstance(message.id, str):
                    one, many = message.id
                    used = translation.npgettext(message.context or "", one, many, 1)
                elif message.context:
                    used = translation.pgettext(message.context, message.id)
                else:
                    used = translation.gettext(message.id)
                assert used == strings(message)[0]


class TestLanguage:
    def test_english_and_each_catalog_are_on_offer(self) -> None:
        assert languages() == {"en", "fr"}

    @pytest.mark.parametrize(
        ("locale", "language"),
        [
            ("fr", "fr"),
            ("fr-FR", "fr"),
            ("fr_CA", "fr"),
            ("FR-ch", "fr"),
            (None, "fr"),
            ("en", "en"),
            ("EN", "en"),
            ("en_GB", "en"),
            ("en-us", "en"),
            ("en_US.UTF-8", "en"),
            ("en.UTF-8", "en"),
            ("en@euro", "en"),
            ("en-GB-oxendict", "en"),
            (" en ", "en"),
            ("en-" + "x" * 32, "en"),
            ("de", "fr"),
            ("de_DE", "fr"),
            ("eng", "fr"),
            ("english", "fr"),
            ("<script>", "fr"),
            ("../../etc/passwd", "fr"),
            ("-en", "fr"),
            ("__", "fr"),
            ("  ", "fr"),
            ("\u202een", "fr"),
            ("x" * 35, "fr"),
        ],
    )
    def test_it_is_the_customers_or_french(self, locale: str | None, language: str) -> None:
        composed = letter(locale=locale)
        assert composed.language == language
        assert composed.subject == {"fr": FRENCH_SUBJECT, "en": ENGLISH_SUBJECT}[language]
        assert ("html", (("lang", language), ("dir", "ltr"))) in Page(composed.html).tags
        assert {"fr": "Bonjour,", "en": "Hello,"}[language] in composed.text.splitlines()

    @pytest.mark.parametrize(
        ("language", "locale", "direction"),
        [("nl", "nl-BE", "ltr"), ("he", "he_IL", "rtl"), ("zh_Hant", "zh-Hant-TW", "ltr")],
    )
    def test_another_is_a_catalog_away(
        self, translate: Callable[[str], None], language: str, locale: str, direction: str
    ) -> None:
        assert letter(locale=locale).language == "fr"
        translate(language)
        composed = letter(locale=locale)
        assert composed.language == translation.to_language(language)
        assert composed.subject == f"[{ENGLISH_SUBJECT}]"
        assert "[Cancelled seats]: 2" in composed.text
        page = Page(composed.html)
        assert ("html", (("lang", composed.language), ("dir", direction))) in page.tags
        assert page.details["[Cancelled seats]"] == "2"
        aligned = {
            value for _, attributes in page.tags for name, value in attributes if name == "align"
        }
        assert aligned == {"center", "right" if direction == "rtl" else "left"}

    def test_a_region_of_its_own_does_not_serve_another(
        self, translate: Callable[[str], None]
    ) -> None:
        translate("pt_BR")
        assert offered("pt_BR") == "pt-br"
        assert offered("pt-PT") is None
        assert offered("pt") is None


class TestLetter:
    def test_it_tells_what_was_cancelled_and_what_comes_of_it(self) -> None:
        composed = letter()
        assert details(composed) == {
            "Booking number": "BK-42",
            "Tour": "Paris City Tour",
            "Cancelled seats": "2",
            "Refund": "€150.00",
        }
        for version in (composed.text, Page(composed.html).text):
            assert "We confirm your cancellation." in version
            assert "You will receive the refund within 5–7 working days." in version
            assert "Thank you for your understanding." in version
            assert "Replies to it are not read." in version

    def test_it_tells_so_in_french(self) -> None:
        composed = letter(locale="fr")
        for version in (composed.text, Page(composed.html).text):
            assert "Nous confirmons votre annulation." in version
            assert "150,00\xa0€" in version
            assert "Vous recevrez le remboursement sous 5–7 jours ouvrables." in version
            assert "Merci de votre compréhension." in version
        assert "Numéro de réservation\xa0: BK-42\n" in composed.text

    @pytest.mark.parametrize(
        ("locale", "seats", "label"),
        [
            ("en", 1, "Cancelled seat"),
            ("en", 2, "Cancelled seats"),
            ("fr", 1, "Place annulée"),
            ("fr", 2, "Places annulées"),
        ],
    )
    def test_seats_are_counted_as_the_language_does(
        self, locale: str, seats: int, label: str
    ) -> None:
        composed = letter(locale=locale, seats_released=seats)
        assert Page(composed.html).details[label] == str(seats)
        assert f"{label}: {seats}" in composed.text.replace("\xa0:", ":").splitlines()

    def test_a_million_seats_are_a_plain_number(self) -> None:
        assert details(letter(seats_released=1_000_000))["Cancelled seats"] == "1000000"

    @pytest.mark.parametrize("name", [None, "", " \r\n\t", "\u202e\u200b"])
    def test_without_a_tours_name_it_has_no_row_for_it(self, name: str | None) -> None:
        rows = ["Booking number", "Cancelled seats", "Refund"]
        assert list(details(letter(tour_name=name))) == rows

    def test_its_text_has_no_holes(self) -> None:
        for fields in (
            {},
            {"tour_name": None},
            {"payment_id": None},
            {"currency": None},
            {"booking_id": "\u200b"},
            {"seats_remaining": 0},
            {"seats_remaining": 2},
            {"seats_remaining": 2, "payment_id": None},
            {"seats_remaining": 2, "currency": None},
        ):
            text = letter(**fields).text
            assert "\n\n\n" not in text
            assert text == text.strip() + "\n"

    def test_it_loads_nothing_from_elsewhere(self) -> None:
        composed = letter()
        assert "//" not in composed.html.replace("<!--", "")
        assert not {tag for tag, _ in Page(composed.html).tags} & {"img", "script", "link", "a"}

    def test_the_language_around_it_stays(self) -> None:
        with translation.override("de"):
            letter(locale="fr")
            assert translation.get_language() == "de"


class TestSteps:
    """What is said of the booking as a whole: no more than the event does."""

    @pytest.mark.parametrize(
        ("locale", "remaining", "said"),
        [
            ("en", None, "We confirm your cancellation."),
            ("en", 0, "Your booking has been cancelled."),
            ("en", 2, "A part of your booking has been cancelled."),
            ("fr", None, "Nous confirmons votre annulation."),
            ("fr", 0, "Votre réservation a bien été annulée."),
            ("fr", 2, "Une partie de votre réservation a bien été annulée."),
        ],
    )
    def test_it_says_whether_the_whole_booking_is_cancelled(
        self, locale: str, remaining: int | None, said: str
    ) -> None:
        composed = letter(locale=locale, seats_remaining=remaining)
        for version in (composed.text, Page(composed.html).text):
            assert said in version

    @pytest.mark.parametrize(
        ("locale", "remaining", "said"),
        [
            ("en", 1, "After this cancellation your booking keeps 1 seat."),
            ("en", 2, "After this cancellation your booking keeps 2 seats."),
            ("en", 1_000_000, "After this cancellation your booking keeps 1000000 seats."),
            ("fr", 1, "Après cette annulation, votre réservation conserve 1 place."),
            ("fr", 2, "Après cette annulation, votre réservation conserve 2 places."),
        ],
    )
    def test_it_says_how_many_seats_the_booking_keeps(
        self, locale: str, remaining: int, said: str
    ) -> None:
        composed = letter(locale=locale, seats_released=3, seats_remaining=remaining)
        assert said in composed.text.splitlines()
        assert said in Page(composed.html).text
        assert (
            Page(composed.html).details[{"en": "Cancelled seats", "fr": "Places annulées"}[locale]]
            == "3"
        )

    @pytest.mark.parametrize("locale", ["en", "fr"])
    @pytest.mark.parametrize("remaining", [None, 0])
    def test_it_does_not_speak_of_seats_that_remain_where_none_are_named(
        self, locale: str, remaining: int | None
    ) -> None:
        composed = letter(locale=locale, seats_remaining=remaining)
        for version in (composed.text, composed.html):
            assert "keep" not in version
            assert "conserve" not in version

    @pytest.mark.parametrize(
        ("locale", "remaining", "subject"),
        [
            ("en", 1, "Confirmation of your partial cancellation"),
            ("fr", 1, "Confirmation de votre annulation partielle"),
            ("en", 0, "Confirmation of your booking's cancellation"),
            ("fr", 0, "Confirmation d'annulation de votre réservation"),
            ("en", None, ENGLISH_SUBJECT),
            ("fr", None, FRENCH_SUBJECT),
        ],
    )
    def test_the_subject_says_what_was_cancelled_as_far_as_that_is_known(
        self, locale: str, remaining: int | None, subject: str
    ) -> None:
        assert letter(locale=locale, seats_remaining=remaining).subject == subject


class TestRefund:
    @pytest.mark.parametrize(
        ("amount", "currency", "locale", "written"),
        [
            ("150.0", "eur", "fr", "150,00\xa0€"),
            ("150.0", "EUR", "en", "€150.00"),
            ("1E+2", "eur", "en", "€100.00"),
            ("0.01", "eur", "en", "€0.01"),
            ("1234567.5", "eur", "fr", "1\u202f234\u202f567,50\xa0€"),
            ("1234.5", "chf", "fr_CH", "1\u202f234,50\xa0CHF"),
            ("1234.5", "cad", "fr-CA", "1\xa0234,50\xa0$"),
            ("1234.5", "cad", "fr-FR", "1\u202f234,50\xa0$CA"),
            ("12.5", "gbp", "en-GB", "£12.50"),
            ("12.5", "usd", "en_US", "$12.50"),
            ("12.5", "usd", "en-GB", "US$12.50"),
            ("12.5", "usd", "en_GB.UTF-8", "US$12.50"),
            ("12.5", "gbp", "en-XX", "£12.50"),  # a region that CLDR doesn't know
            ("12.5", "gbp", "de", "12,50\xa0£GB"),  # a language that isn't on offer
            ("1500", "jpy", "en", "¥1,500"),
            ("1500.00", "jpy", "fr", "1\u202f500\xa0JPY"),
            ("1500", "isk", "en", "ISK\xa01,500"),
            ("1.5", "kwd", "en", "KWD\xa01.500"),
            ("1.23", "kwd", "fr", "1,230\xa0KWD"),
            ("12.5", "chf", "en", "CHF\xa012.50"),
            ("9999999999.99", "eur", "en", "€9,999,999,999.99"),
            ("150.0000000000000000000000000000000000000000", "eur", "en", "€150.00"),
        ],
    )
    def test_it_is_written_as_the_customers_region_does_and_exactly(
        self, amount: str, currency: str, locale: str, written: str
    ) -> None:
        composed = letter(amount=Decimal(amount), currency=currency, locale=locale)
        label = {"en": "Refund: ", "fr": "Remboursement\xa0: "}[composed.language]
        assert f"{label}{written}" in composed.text.splitlines()
        assert f"<bdi>{written}</bdi>" in composed.html

    @pytest.mark.parametrize(
        ("locale", "said"),
        [
            ("en", "You will receive the refund by the means of payment that you used"),
            ("fr", "Vous recevrez le remboursement par le moyen de paiement que vous avez utilisé"),
        ],
    )
    @pytest.mark.parametrize("amount", ["150", "0.01", "1.23", "10000000000"])
    def test_without_a_currency_it_is_announced_and_not_in_figures(
        self, amount: str, locale: str, said: str
    ) -> None:
        composed = letter(amount=Decimal(amount), currency=None, locale=locale)
        for version in (composed.text, Page(composed.html).text):
            assert f"{said}, " in version
            assert amount not in version
            assert "€" not in version
        assert "Refund: " not in composed.text
        assert "Remboursement" not in composed.text

    @pytest.mark.parametrize("locale", ["en", "fr"])
    @pytest.mark.parametrize(
        "fields",
        [
            {"payment_id": None},
            {"payment_id": ""},
            {"amount": None},
            {"amount": Decimal(0)},
            {"amount": Decimal(-5)},
            {"amount": Decimal("NaN")},
            {"amount": Decimal("Infinity")},
            {"amount": Decimal("150.005")},
            {"amount": Decimal("0.10000000000000000000000000000000000001")},
            {"amount": Decimal("1E-1000")},
            {"amount": Decimal(10**10)},  # more than Stripe takes
            {"amount": Decimal(10**13)},
            {"amount": Decimal("1E+1000")},
            {"amount": Decimal("1.234"), "currency": "kwd"},  # Stripe has it in steps of 0.010
            {"amount": Decimal("10.5"), "currency": "jpy"},
            {"amount": Decimal("10.5"), "currency": "isk"},
            {"amount": Decimal(150), "currency": "dem"},
            {"amount": Decimal("1500.005"), "currency": "jpy"},
            {"amount": Decimal("150.005"), "currency": None},  # which no currency has
            {"amount": Decimal(10**12), "currency": None},
            {"amount": Decimal(0), "currency": None},
            {"payment_id": None, "currency": None},
            {"currency": "zzz"},
            {"currency": "xxx"},
            {"currency": "<b>"},
            {"currency": "ıdr"},  # whose upper case is a currency's
        ],
        ids=repr,
    )
    def test_none_is_mentioned_unless_it_can_be_promised(
        self, fields: dict[str, Any], locale: str
    ) -> None:
        composed = letter(**fields, locale=locale)
        for version in (composed.text, composed.html):
            words = version.casefold()
            assert "refund" not in words
            assert "rembours" not in words
            assert "150" not in words
            assert "5–7" not in words


class TestForeignText:
    """A producer's names and numbers are shown, and do nothing."""

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("Tom & Jerry's", "Tom & Jerry's"),
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
            ("</td></table><img src=x onerror='a()'>", "</td></table><img src=x onerror='a()'>"),
            ("&lt;b&gt; &#8238;", "&lt;b&gt; &#8238;"),
            ("{{ booking }} {% now 'Y' %} %(label)s", "{{ booking }} {% now 'Y' %} %(label)s"),
            ("two\r\nlines\u2028three\u0085four", "two lines three four"),
            ("\t a \x0b\x00\x1b[31m b\x7f ", "a [31m b"),
            ("non\xa0\u3000breaking", "non breaking"),
            ("abc\u202edef\u2066ghi\u200f\u061c", "abcdefghi"),
            ("zero\u200bwidth\ufeff\u2060\u00ad", "zerowidth"),
            ("می\u200cخواهم 👩\u200d👧", "می\u200cخواهم 👩\u200d👧"),  # joiners are letters' own
            ("half a \ud83d bus", "half a \ufffd bus"),
            ("\ud83d", "\ufffd"),
            ("x" * 200, "x" * 200),
            ("x" * 201, "x" * 199 + "…"),
            ("y" * 198 + " " + "z" * 10_000, "y" * 198 + "…"),
        ],
    )
    def test_a_tours_name_is_shown_on_one_line(self, name: str, shown: str) -> None:
        composed = letter(tour_name=name)
        assert details(composed)["Tour"] == shown
        assert Page(composed.html).tags == Page(letter().html).tags
        assert composed.text.count("\n") == letter().text.count("\n")

    @pytest.mark.parametrize(
        ("booking", "shown"),
        [
            ("<script>alert(1)</script>", "<script>alert(1)</script>"),
            ("BK\r\nBcc: an address", "BK Bcc: an address"),
            ("\u202e24-KB", "24-KB"),
            ("B" * 255, "B" * 255),
        ],
    )
    def test_a_booking_number_is_shown_whole_and_on_one_line(
        self, booking: str, shown: str
    ) -> None:
        composed = letter(booking_id=booking)
        assert details(composed)["Booking number"] == shown
        assert Page(composed.html).tags == Page(letter().html).tags

    def test_a_booking_number_of_which_nothing_is_visible_is_left_out(self) -> None:
        assert "Booking number" not in details(letter(booking_id="\u202e\n"))

    @pytest.mark.parametrize(
        "text",
        [
            "www.evil.example",
            "evil.com",
            "evil.com/x",
            "http://evil.example/x",
            "https://1.2.3.4/x",
            "1.2.3.4/x",
            "ann@evil.com",
            "mailto:ann@evil.com",
            "tel:0123456789",
            "evil。com",
            "evil．com",
            "evil｡com",
            "(www.evil.com)",
            "x www.evil.com",
            "x\u2060.evil.com",
            r"\\evil\share",
        ],
    )
    @pytest.mark.parametrize("field", ["tour_name", "booking_id"])
    def test_no_mail_program_makes_a_link_of_it(self, field: str, text: str) -> None:
        assert LINKED.search(text)
        composed = letter(**{field: text})
        shown = details(composed)[{"tour_name": "Tour", "booking_id": "Booking number"}[field]]
        assert shown.replace("\u200c", "") == text.replace("\u2060", "")
        for version in (composed.text, Page(composed.html).text):
            assert "<a " not in urlize(version)
            assert not LINKED.search(version)
            assert shown in version

    @pytest.mark.parametrize(
        "text", ["St. Malo", "Tour: the best", "Paris, 12 h", "BK-2026-11", "a/b", "100 %", "end."]
    )
    def test_what_could_be_no_link_is_left_alone(self, text: str) -> None:
        assert details(letter(tour_name=text))["Tour"] == text

    def test_what_is_cut_is_measured_by_what_is_seen(self) -> None:
        shown = details(letter(tour_name="a." * 100))["Tour"]
        assert shown.replace("\u200c", "") == "a." * 100

    def test_it_is_set_apart_from_the_text_around_it_and_wraps_anywhere(self) -> None:
        composed = letter(tour_name="NAME", booking_id="NUMBER")
        cells = [
            line for line in composed.html.splitlines() if "</td>" in line and "<bdi>N" in line
        ]
        assert len(cells) == 2
        assert all("overflow-wrap: anywhere" in cell for cell in cells)
        for word in ("NAME", "NUMBER"):
            assert composed.html.count(word) == composed.html.count(f"<bdi>{word}</bdi>") > 1

    @hypothesis(deadline=None)  # the first letter reads templates, catalogs and CLDR
    @given(tour=st.text(max_size=300), booking=st.text(max_size=254))
    def test_whatever_it_is_it_adds_no_tag_no_line_no_link_and_nothing_that_reorders(
        self, tour: str, booking: str
    ) -> None:
        composed = letter(tour_name=f"T{tour}", booking_id=f"B{booking}")
        assert composed.subject == ENGLISH_SUBJECT
        assert Page(composed.html).tags == Page(letter().html).tags
        assert len(composed.text.splitlines()) == len(letter().text.splitlines())
        assert not set(composed.text + composed.html) & set(BIDI_CONTROLS)
        assert not LINKED.search(composed.text)
        (composed.text + composed.html).encode()
