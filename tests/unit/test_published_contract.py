"""The published contract: its schemas say what the decoder says, and its files are what the types are."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import category

import msgspec
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from booking_platform.contract import artefacts, samples, tables, texts
from booking_platform.contract.announcing import Announcement
from booking_platform.contract.envelope import InvalidEvent, decode
from booking_platform.contract.events import BookingCancelled, BookingCreated
from booking_platform.contract.payloads import Note, Payload, Undescribed
from booking_platform.contract.schemas import event_schema
from booking_platform.operations.management.commands.write_contract import contract
from tests.nodes import TESTS, node
from tests.unit.envelopes import (
    CANCELLED,
    CHANGED,
    CREATED,
    IDENTIFIERS,
    NOW,
    REQUIRED,
    TYPES,
    json_values,
    patiently,
    spelled,
    written,
)

CONTRACT = contract()
TAKEN: list[type[Payload]] = list(CONTRACT.events.values())
ANNOUNCED: list[type[Announcement]] = list(CONTRACT.announcements.values())
EACH: list[type[Payload]] = [*TAKEN, *ANNOUNCED]
PUBLISHED = settings.BASE_DIR / "docs" / "contract"

AMOUNT, NAME = "payload.amount", "payload.tourName"
Fields = dict[str, str]

# What both refuse, or both accept: the field, and its JSON text.
NEAR: list[tuple[Fields, str, str]] = [
    *((event, field, "null") for event, field in REQUIRED),
    *((event, field, text) for event, field in IDENTIFIERS for text in (
        '""', "7", "[]", "{}", '" BK-1"', '"BK-1 "', '"BK\\u00a0"', '"B K"', '"BK\\n"', '"B\\u0000K"',
        '"B\\u200bK"', '"\\ufeffBK"', '"B\\u2028K"', '"B\\u00adK"', '"é"', '"日本"', '"👩"', f'"{255 * "a"}"',
        f'"{256 * "a"}"', f'"{255 * "👩"}"', f'"{256 * "👩"}"', '"B\\\\K]"',
    )),
    *((event, field, text) for event, field in (
        (CREATED, "payload.tourId"), (CREATED, "payload.seatsBooked"), (CANCELLED, "payload.seatsReleased"),
        (CANCELLED, "payload.seatsRemaining"), (CANCELLED, "payload.revision"), (CHANGED, "payload.seats"),
        (CHANGED, "payload.revision"),
    ) for text in (
        "0", "-1", "1", "1.5", '"2"', "true", "[]", "1000000", "1000001", str(2**63 - 1), str(2**64),
    )),
    *((CANCELLED, AMOUNT, text) for text in (
        "null", "0", "-1", "80.00", "1e3", "true", "[]", '""', '"80.00"', '"-80.00"', '"+80"', '"80."', '".5"', '"80,00"',
        '"1e3"', '" 80"', '"80\\n"', '"٣"', '"NaN"', '"EUR 80"', f'"{"0" * 60}1"', f'"{"0" * 100}1"', f'"{"9" * 31}"',
        f'"{"9" * 32}"', f'"0.{"1" * 30}"', f'"0.{"1" * 31}"', "9" * 30, "9" * 33, "2e31", "-2e31",
    )),
    *((CANCELLED, field, text) for field, texts in {
        "payload.currency": ('"eur"', '"EUR"', '"euro"', '"eu"', "3", "null", '"e\\u0000r"'),
        "payload.userEmail": ("null", '""', '"no address"', f'"{1001 * "a"}"', "[]", '"a\\u0000b"'),
        NAME: ('"Giverny \\ud83d"', '" "', f'"{10_001 * "a"}"', "7", '"a\\u0000b"', "null"),
        "payload.locale": ('"f"', '"fr_CA"', f'"{36 * "a"}"', "null"),
        "payload.unknown": ("1e400", "[[]]", '"\\u0000"', "null"),
    }.items() for text in texts),
    *((CREATED, "timestamp", text) for text in (
        "1732272000", "null", '""', '"1732272000"', '"yesterday"', '"22.11.2026 10:00"', '"2026/11/22 10:00"',
        '"Sun, 22 Nov 2026 10:00:00 GMT"', '"2026-11-22T10:00:00Z "', '"2026-11-22T10:00:00Z\\n"', '"2026-11-22"',
        '"2026-11-22T10:00:00"', '"2026-11-22 10:00:00+0100"', '"2026-11-22t10:00:00z"', '"2026-11-22T10:00Z"',
        '"2026-11-22T09:00:60Z"', '"2026-11-22T10:00:00,123456789+01:00"', '"20261122T100000Z"', '"2026-W47-7"',
        '"2026-11-22T11:00:00+01:00[Europe/Paris]"', '"2026-11-22T10"', '"2026-11"', '"2026-11-22T"',
    )),
    (CANCELLED, "payload.paymentId", "null"),
    (CREATED, "payload.bookingId", "null"),
    *((CREATED, "eventType", text) for text in ('"BookingCancelled"', '"booking.created"', "null", "1")),
    *((CREATED, "payload", text) for text in ("null", "[]", '"{}"', "7")),
]  # fmt: skip

# What a schema lets pass, and the decoder refuses; and how the schema says it.
UNSAID = [
    (CREATED, "payload.seatsBooked", "2.0", "`2.0` is refused"),
    (CREATED, "payload.tourId", "42e0", "without an exponent"),
    (CREATED, "payload.bookingId", '"BK\\ud83d"', "no halves of characters"),
    (CREATED, "eventId", '"e\\udb40\\udc41"', "such as tags"),
    (CANCELLED, AMOUNT, f"0.{31 * '1'}", "at most 30 digits behind the point"),
    (CREATED, "timestamp", '"2026-02-30T10:00:00Z"', "day and time exist"),
    (CREATED, "timestamp", '"2026-11-22T25:00:00Z"', "day and time exist"),
    (CREATED, "timestamp", '"2027-11-22T10:00:00Z"', "at most a day in the future"),
]


def named(payload_type: type[Payload]) -> str:
    return payload_type.__name__


def validates(body: bytes, payload_type: type[Payload]) -> bool:
    validator = Draft202012Validator(event_schema(payload_type))
    return bool(validator.is_valid(json.loads(body)))


def decodes(body: bytes, payload_type: type[Payload]) -> bool:
    try:
        decode(body, payload_type, now=NOW)
    except InvalidEvent:
        return False
    return True


def with_field(event: Fields, field: str, text: str) -> bytes:
    if field == "payload":
        return written(event).replace(
            re.findall(rb'"payload":(\{.*?\})', written(event))[0], text.encode()
        )
    return written(event | {field: text})


def type_of(event: Fields) -> type[Payload]:
    return TYPES[event["eventType"]]


class TestASchema:
    @pytest.mark.parametrize("payload_type", EACH, ids=named)
    def test_it_is_one(self, payload_type: type[Payload]) -> None:
        Draft202012Validator.check_schema(event_schema(payload_type))

    @pytest.mark.parametrize("payload_type", EACH, ids=named)
    def test_it_accepts_the_example(self, payload_type: type[Payload]) -> None:
        assert validates(samples.sample(payload_type), payload_type)
        assert decodes(samples.sample(payload_type), payload_type)

    @pytest.mark.parametrize("payload_type", EACH, ids=named)
    def test_it_requires_what_the_decoder_requires(self, payload_type: type[Payload]) -> None:
        whole = json.loads(samples.sample(payload_type))
        for place in (whole, whole["payload"]):
            for name in list(place):
                value = place.pop(name)
                body = json.dumps(whole).encode()
                assert validates(body, payload_type) is decodes(body, payload_type), name
                place[name] = value

    @pytest.mark.parametrize("payload_type", EACH, ids=named)
    def test_it_allows_fields_that_nobody_knows(self, payload_type: type[Payload]) -> None:
        event = json.loads(samples.sample(payload_type))
        event["new"] = event["payload"]["new"] = {"any": ["thing"]}

        assert validates(json.dumps(event).encode(), payload_type)

    @pytest.mark.parametrize("payload_type", EACH, ids=named)
    def test_it_says_what_each_field_means(self, payload_type: type[Payload]) -> None:
        properties = event_schema(payload_type)["properties"]
        silent = [
            name
            for name, schema in (properties | properties["payload"]["properties"]).items()
            if name != "payload" and not schema.get("description")
        ]

        assert silent == []

    @pytest.mark.parametrize(
        ("event", "field", "text"), NEAR, ids=lambda part: str(spelled(part))[:40]
    )
    def test_it_says_what_the_decoder_says(self, event: Fields, field: str, text: str) -> None:
        body = with_field(event, field, text)

        assert validates(body, type_of(event)) is decodes(body, type_of(event))

    def test_near_misses_are_on_both_sides(self) -> None:
        """Or the test above would hold for a schema that lets all pass, and for one that lets none."""
        verdicts = [decodes(with_field(*near), type_of(near[0])) for near in NEAR]

        assert min(verdicts.count(True), verdicts.count(False)) > 50

    @pytest.mark.parametrize(("event", "field", "text", "said"), UNSAID)
    def test_what_it_can_not_say_is_in_its_description(
        self, event: Fields, field: str, text: str, said: str
    ) -> None:
        body = with_field(event, field, text)

        assert validates(body, type_of(event))
        assert not decodes(body, type_of(event))
        assert said in event_schema(type_of(event))["description"]

    @patiently
    @given(
        event=st.sampled_from([CREATED, CANCELLED, CHANGED]), value=json_values(), data=st.data()
    )
    def test_it_refuses_nothing_that_the_decoder_reads(
        self, event: Fields, value: str, data: st.DataObject
    ) -> None:
        """But for a few ways to write a time, which docs/events.md does not name."""
        field = data.draw(st.sampled_from([name for name in event if name != "timestamp"]))
        body = written(event | {field: value})
        if decodes(body, type_of(event)):
            assert validates(body, type_of(event))

    @patiently
    @given(
        where=st.sampled_from(
            [*IDENTIFIERS, *((CANCELLED, f"payload.{name}") for name in ("currency", "locale"))]
        ),
        text=st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=6)
        | st.text(st.sampled_from(" \0\n\u200b\u00a0aé👩"), max_size=4),
    )
    def test_of_any_text_it_says_what_the_decoder_says(
        self, where: tuple[Fields, str], text: str
    ) -> None:
        event, field = where
        body = with_field(event, field, json.dumps(text))

        assert validates(body, type_of(event)) is decodes(body, type_of(event))

    @patiently
    @given(
        field=st.sampled_from(["tourId", "seatsReleased", "seatsRemaining", "revision", "amount"]),
        number=st.integers(-(2**64), 2**64)
        | st.sampled_from([0, 1, 10**6, 10**6 + 1, 2**63 - 1, 2**63, -1]),
        as_text=st.booleans(),
    )
    def test_of_any_number_it_says_what_the_decoder_says(
        self, field: str, number: int, as_text: bool
    ) -> None:
        body = with_field(CANCELLED, f"payload.{field}", f'"{number}"' if as_text else str(number))

        assert validates(body, BookingCancelled) is decodes(body, BookingCancelled)

    def test_an_id_is_told_from_others_as_the_decoder_does_up_to_the_last_character(self) -> None:
        pattern = event_schema(BookingCreated)["properties"]["eventId"]["not"]["pattern"]
        for code in range(0x10000):
            if category(char := chr(code)) == "Cs":  # halves of characters are no text
                continue
            for value in (f"a{char}b", f"{char}b", f"a{char}"):
                refused = re.search(pattern, value) is not None
                assert refused is not self._visible(value), hex(code)

    @staticmethod
    def _visible(value: str) -> bool:
        try:
            texts._visible("eventId", value)
        except InvalidEvent:
            return False
        return True


class TestSchemasInAnotherLanguage:
    def test_they_say_what_the_decoder_says(self) -> None:
        cases = [
            *((with_field(*near), type_of(near[0])) for near in NEAR),
            *((samples.sample(each), each) for each in EACH),
        ]
        lines = [
            json.dumps({"type": named(payload_type), "body": body.decode()})
            for body, payload_type in cases
        ]
        done = subprocess.run(
            [node(TESTS), "validate.js", str(PUBLISHED / "schemas")],
            cwd=TESTS,
            input="\n".join(lines),
            check=True,
            capture_output=True,
            text=True,
        )
        verdicts = [line == "true" for line in done.stdout.splitlines()]

        assert len(verdicts) == len(cases)
        assert [
            case
            for case, verdict in zip(cases, verdicts, strict=True)
            if verdict is not decodes(*case)
        ] == []


WRONG = {
    "a channel that is not there": ('"#/channels/BookingCreated"', '"#/channels/BookingMoved"'),
    "a schema that is none": ('"type": "integer"', '"type": "whole"'),
    "a word of version 2": ('"action": "receive"', '"action": "subscribe"'),
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What AsyncAPI's parser says of our document, and of each that has something wrong, at one start of it."""
    folder = tmp_path_factory.mktemp("asyncapi")
    text = (PUBLISHED / "asyncapi.json").read_text()
    documents = {"ours": text} | {what: text.replace(*change) for what, change in WRONG.items()}
    for what, document in documents.items():
        assert document != text or what == "ours", what
        (folder / what).write_text(document)
    done = subprocess.run(
        [node(TESTS), "parse.js", *(str(folder / what) for what in documents)],
        cwd=TESTS,
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(zip(documents, map(json.loads, done.stdout.splitlines()), strict=True))


class TestTheAsyncAPIDocument:
    def test_its_parser_accepts_it_without_a_warning(self, parsed: dict[str, Any]) -> None:
        found = parsed["ours"]
        assert found["accepted"], found["wrong"]
        assert set(found["channels"]) == {*CONTRACT.events, *CONTRACT.announcements}
        assert found["operations"] == len(EACH)

    @pytest.mark.parametrize("what", WRONG)
    def test_its_parser_would_refuse_a_wrong_one(self, parsed: dict[str, Any], what: str) -> None:
        assert not parsed[what]["accepted"]


class Traveller(msgspec.Struct):
    name: str


class TripRated(Payload, frozen=True, kw_only=True):
    """A customer has rated a trip; ``stars`` are 1 to 5."""

    notes = {
        "stars": Note("how many", 5),
        "words": Note("what was liked", ["food"]),
        "by": Note("who rates it", {"name": "Ann"}),
        "again": Note("whether the customer would come again", True),
        "at": Note("when", datetime(2026, 11, 22, tzinfo=UTC)),
        "either": Note("either", "a"),
    }

    stars: int
    words: list[str]
    by: Traveller | None = None
    again: bool | None = None
    at: datetime
    either: int | str | None = None


class TestAnEventOfAnotherApp:
    def test_types_that_ours_do_not_have_are_described_too(self) -> None:
        schema = event_schema(TripRated)
        Draft202012Validator.check_schema(schema)
        assert validates(samples.sample(TripRated), TripRated)
        assert not validates(samples.sample(TripRated).replace(b'"Ann"', b"1"), TripRated)
        assert validates(samples.sample(TripRated).replace(b'{"name":"Ann"}', b"null"), TripRated)

        section = tables.events_section({"trip.rated": TripRated}, {})
        assert "| `stars` | integer | how many |" in section
        assert "| `words` | array | what was liked |" in section
        assert "| `again` | boolean, optional | whether" in section
        assert "A customer has rated a trip; `stars` are 1 to 5." in section

    def test_a_field_that_nobody_has_described_is_named(self) -> None:
        class Mute(Payload, frozen=True):
            """Something happened."""

            thing: int

        class Vague(Mute, frozen=True):
            """Something happened."""

            notes = {"thing": Note("some thing")}

        class Void(Mute, frozen=True):
            notes = {"thing": Note("some thing", 1)}

        with pytest.raises(Undescribed, match="Void has no docstring"):
            event_schema(Void)
        with pytest.raises(Undescribed, match=r"Mute\.thing has no note"):
            event_schema(Mute)
        with pytest.raises(
            Undescribed, match=r"Vague\.thing is required, and its note has no example"
        ):
            samples.sample(Vague)


class TestAnAnnouncement:
    @pytest.mark.parametrize("payload_type", ANNOUNCED, ids=named)
    def test_none_has_room_for_an_address(self, payload_type: type[Announcement]) -> None:
        names = event_schema(payload_type)["properties"]["payload"]["properties"]

        assert [
            name for name in names if re.search("mail|address|recipient", name, re.IGNORECASE)
        ] == []


@pytest.fixture
def copy(tmp_path: Path, settings: Any) -> Path:
    """A copy of the documents, which the command then takes for the project's own."""
    shutil.copytree(settings.BASE_DIR / "docs", tmp_path / "docs", ignore=_no_packages)
    settings.BASE_DIR = tmp_path
    return tmp_path


_no_packages = shutil.ignore_patterns("node_modules")


class TestWriteContract:
    def test_what_is_published_is_what_the_types_say(self) -> None:
        call_command("write_contract", "--check")

    @pytest.mark.parametrize(
        ("path", "old", "new"),
        [
            ("docs/contract/asyncapi.json", "booking.created", "booking.made"),
            ("docs/contract/schemas/BookingCreated.json", "1000000", "2000000"),
            ("docs/contract/examples/RefundCompleted.json", "80.00", "80.0"),
            ("docs/events.md", "integer, 1–1,000,000", "integer, 1–1,000"),
            ("docs/events.md", "| how many seats the tour has left |", "| something |"),
            ("docs/events.md", "an id used before with other content", "?"),
        ],
    )
    def test_the_check_names_what_has_drifted(
        self, copy: Path, path: str, old: str, new: str
    ) -> None:
        file = copy / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

        with pytest.raises(CommandError, match=rf"\n  {re.escape(path)}\n"):
            call_command("write_contract", "--check")
        assert file.read_text() == text.replace(old, new)

        call_command("write_contract")
        call_command("write_contract", "--check")
        assert file.read_text() == text

    @pytest.mark.parametrize("folder", [artefacts.SCHEMAS, artefacts.EXAMPLES])
    def test_an_event_that_is_no_more_goes_and_one_that_is_missing_comes(
        self, copy: Path, folder: str
    ) -> None:
        kept, gone = copy / folder / "BookingCreated.json", copy / folder / "BookingMoved.json"
        kept.rename(gone)

        with pytest.raises(CommandError, match=r"BookingCreated\.json\n.*BookingMoved\.json"):
            call_command("write_contract", "--check")

        call_command("write_contract")
        assert kept.exists()
        assert not gone.exists()

    def test_the_prose_of_the_page_stays(self, copy: Path) -> None:
        page = copy / "docs" / "events.md"
        page.write_text(page.read_text().replace("**An id** is", "**An id** was"))

        call_command("write_contract", "--check")

    def test_nothing_that_nobody_can_see_is_in_the_files(self) -> None:
        seen = {
            char for file in PUBLISHED.rglob("*.json") for char in file.read_text() if char != "\n"
        }

        assert [char for char in seen if category(char)[0] in "CZ" and char != " "] == []


class TestWhatIsRead:
    def test_the_page_says_which_apps_read_a_field(self) -> None:
        page = (settings.BASE_DIR / "docs" / "events.md").read_text()

        assert re.search(r"\| `seatsRemaining` .* \| catalog, payments, notifications \|", page)
        assert re.search(r"\| `amount` .* \| payments, notifications \|", page)
        assert re.search(r"\| `locale` .* \| notifications \|", page)
