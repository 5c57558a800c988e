from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from booking_platform.contract.envelope import InvalidEvent
from tests.unit.envelopes import CREATED, NOW, patiently, read, refusal


class TestATimestamp:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("2026-11-22T10:00:00Z", NOW),
            ("2026-11-22T10:00:00", NOW),
            ("2026-11-22T12:00:00.000+02:00", NOW),
            ("20261122T100000Z", NOW),
            ("2026-11-23T10:00:00Z", NOW + timedelta(days=1)),
            ("1999-12-31T23:59:59.999999Z", datetime(1999, 12, 31, 23, 59, 59, 999999, UTC)),
            ("2026-11-22t10:00:00z", NOW),
            ("2026-11-22T10:00:00z", NOW),
            ("2026-11-22 12:00:00+0200", NOW),
            ("2026-11-22T09:59:60Z", NOW),
            ("2026-11-22T10:59:60+01:00", NOW),
            ("2026-11-22T09:59:60.5z", NOW),
            ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
            ("2026-11-22T11:00:00+01:00[Europe/Paris]", NOW),
            ("2026-11-22T11:00+01:00[GMT+01:00]", NOW),
            ("2026-11-22t10:00z", NOW),
            ("2026-11-22T10:00:00Z[UTC]", NOW),
            ("2026-11-22T10:00:00.5z[Etc/GMT+0]", NOW + timedelta(seconds=0.5)),
            ("2026-11-22T10:00:00.1234567899Z", NOW + timedelta(microseconds=123456)),
            ("2026-11-22T10:00:00.1234567899z", NOW + timedelta(microseconds=123456)),
            ("2026-11-22T10:00:00,5Z", NOW + timedelta(seconds=0.5)),
        ],
    )
    def test_it_is_iso_8601_in_utc_unless_it_says_otherwise(
        self, text: str, moment: datetime
    ) -> None:
        assert read(CREATED | {"timestamp": f'"{text}"'}).occurred_at == moment

    @pytest.mark.parametrize(
        "text",
        ["garbage", "", " ", "now", "1700000000", "22/11/2026", "2026-11-31T10:00:00Z",
         "2026-11-22T25:00:00Z", "2026-11-22T10:00:00+24:00", " 2026-11-22T10:00:00Z",
         "2026-11-22T10:00:61Z", "2026-11-22T25:00:60Z", "2026-11-22T10:60:60Z", "2026-11-22T10:00:60+24:00",
         "2026-11-22T11:00:00[Europe/Paris]", "2026-11-22T10:00:00Z[]", "2026-11-22T10:00:00Z[UTC",
         "2026-11-22T10:00:00Z[UTC][UTC]", "2026-11-22T10:00:00Z [UTC]", "2026-11-22T10:00:00Z[a b]",
         "\u0662026-11-22t10:00:00z", "2026-11-22T10:00:00zz"],
    )  # fmt: skip
    def test_garbage_is_refused(self, text: str) -> None:
        message = refusal(CREATED | {"timestamp": f'"{text}"'})

        assert message.startswith(f"timestamp is {text!r}: expected ISO 8601")

    def test_it_holds_no_nul(self) -> None:
        assert refusal(CREATED | {"timestamp": '"2026-11-22T10:00:00Z\\u0000"'}).startswith(
            "timestamp is "
        )

    def test_a_number_is_refused(self) -> None:
        message = refusal(CREATED | {"timestamp": "1700000000"})

        assert message == (
            "timestamp is 1700000000: expected a string in ISO 8601, such as 2026-11-22T10:00:00Z"
        )

    @pytest.mark.parametrize(
        "text", ["2026-11-23T10:00:00.000001Z", "9999-12-31T23:59:59-23:59", "2026-11-23T10:00:60z"]
    )
    def test_more_than_a_day_ahead_is_refused(self, text: str) -> None:
        message = refusal(CREATED | {"timestamp": f'"{text}"'})

        assert message == f"timestamp is {text!r}: more than a day in the future"

    @pytest.mark.parametrize("text", ["9999-12-31T23:59:60Z", "0001-01-01T00:00:00+05:00"])
    def test_what_is_out_of_the_calendar_is_refused(self, text: str) -> None:
        message = refusal(CREATED | {"timestamp": f'"{text}"'})

        assert message == f"timestamp is {text!r}: before the year 1 or after 9999"

    @patiently
    @given(
        st.datetimes(max_value=datetime(2026, 11, 20)),  # noqa: DTZ001  (its offset comes next)
        st.timedeltas(timedelta(hours=-23), timedelta(hours=23)),
    )
    @example(datetime(1, 1, 1), timedelta(hours=5))  # noqa: DTZ001
    def test_what_is_accepted_can_be_stored_in_utc(
        self, local: datetime, offset: timedelta
    ) -> None:
        sign, hours = "-" if offset < timedelta(0) else "+", abs(offset) // timedelta(hours=1)
        fields = CREATED | {"timestamp": f'"{local.isoformat()}{sign}{hours:02}:00"'}
        with suppress(InvalidEvent):
            moment = read(fields).occurred_at

            assert moment.astimezone(UTC) == moment
