"""Lists as CSV: exact, harmless in a spreadsheet, in flat memory, for those who may have them."""

import asyncio
import csv
import io
from typing import Any

import psutil
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from booking_platform.messaging.models import DeadLetter
from booking_platform.operations import exports
from catalog.models import Reservation
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration.admin_pages import listing, parked, staff, text

pytestmark = pytest.mark.django_db

MODELS = (Reservation, Refund, CancellationEmail, DeadLetter)


def address(model: Any, *, private: bool = False) -> str:
    return f"{listing(model)}export/{'private/' if private else ''}"


def pieces(response: Any) -> bytes:
    assert response.status_code == 200
    return b"".join(response.streaming_content)


def rows(
    client: Client, model: Any, *, private: bool = False, **query: Any
) -> list[dict[str, str]]:
    content = pieces(client.get(address(model, private=private), query))
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def reserve(count: int, booking: str = "BK-{}", **columns: Any) -> None:
    tour = TourFactory.create(capacity=10)
    now = timezone.now()
    Reservation.objects.bulk_create(
        (
            Reservation(
                booking_id=booking.format(n), tour=tour, seats=1, created_at=now, updated_at=now,
                **{"state": "reserved"} | columns,
            )
            for n in range(count)
        ),
        batch_size=5_000,
    )  # fmt: skip


class TestACell:
    @pytest.mark.parametrize(
        "text",
        [
            "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "\u200b=1", "＝1", "\ufeff@x",
            '=HYPERLINK("http://evil")', "'=1", "'", "\tx",
        ],
        ids=ascii,
    )  # fmt: skip
    def test_what_a_spreadsheet_would_run_gets_an_apostrophe(self, text: str) -> None:
        assert exports.as_cell(text) == f"'{text}"

    @pytest.mark.parametrize(
        "text", ["BK-1", "0012", "a=1", "", "é", "a\nb", " x", '"', "🎫", "1e5"]
    )
    def test_what_is_harmless_is_exact(self, text: str) -> None:
        assert exports.as_cell(text) == text

    def test_values_of_ours_are_written_as_programs_read_them(self) -> None:
        moment = timezone.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.get_fixed_timezone(60))  # type: ignore[attr-defined]
        assert exports.as_cell(moment) == "2026-01-02T02:04:05Z"
        given = (None, True, False, -5, memoryview(b"\xff{"))
        assert [exports.as_cell(each) for each in given] == ["", "true", "false", "-5", "\\xff{"]


class TestAFile:
    def test_it_has_each_row_of_the_filter_once(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "PAGE", 3)
        reserve(10)
        reserve(4, "R-{}", state="released")
        found = rows(admin_client, Reservation, state__exact="reserved")
        assert [row["booking_id"] for row in found] == [f"BK-{n}" for n in range(10)]
        assert len(rows(admin_client, Reservation)) == 14
        assert [row["booking_id"] for row in rows(admin_client, Reservation, q="R-2")] == ["R-2"]

    def test_excel_takes_it_for_utf_8(self, admin_client: Client) -> None:
        reserve(1, "Réservation 🎫")
        response = admin_client.get(address(Reservation))
        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert response["Content-Disposition"].startswith('attachment; filename="reservations-')
        content = pieces(response)
        assert content.startswith(b"\xef\xbb\xbfbooking_id,")
        assert "Réservation 🎫" in content.decode()

    def test_ids_of_strangers_are_exact_and_no_formula(self, admin_client: Client) -> None:
        ids = ["=cmd|'/C calc'!A0", "000123456789012345678", 'a"b,c;d\ne', "x" * 255]
        for each in ids:
            reserve(1, each)
        found = [row["booking_id"] for row in rows(admin_client, Reservation)]
        assert found == ["'=cmd|'/C calc'!A0", *ids[1:]]

    def test_an_empty_list_has_a_head(self, admin_client: Client) -> None:
        assert pieces(admin_client.get(address(Refund))).count(b"\r\n") == 1

    def test_refunds_have_their_amount_in_words_of_their_currency(
        self, admin_client: Client
    ) -> None:
        RefundFactory.create(amount_minor=1500, currency="jpy")
        RefundFactory.create(amount_minor=1500, currency="eur")
        assert [row["amount"] for row in rows(admin_client, Refund)] == ["1500", "15.00"]

    @pytest.mark.parametrize("model", MODELS)
    def test_the_number_of_queries_does_not_grow_with_the_rows(
        self, admin_client: Client, model: Any
    ) -> None:
        make: Any = {
            Reservation: lambda n: reserve(1, f"BK-{n}"),
            Refund: lambda n: RefundFactory.create(booking_id=f"BK-{n}"),
            CancellationEmail: lambda n: EmailFactory.create(booking_id=f"BK-{n}"),
            DeadLetter: lambda n: parked(b"%d" % n),
        }[model]
        counts = []
        for some in (range(2), range(2, 40)):
            for n in some:
                make(n)
            with CaptureQueriesContext(connection) as queries:
                assert len(rows(admin_client, model)) == some.stop
            counts.append(len(queries))
        assert counts[0] == counts[1]

    def test_a_lookup_that_is_wrong_leads_to_the_list(self, admin_client: Client) -> None:
        response = admin_client.get(address(Reservation), {"tour__id__gte": "x"})
        assert response.status_code == 302
        assert response["Location"] == listing(Reservation)

    @pytest.mark.once
    def test_a_hundred_thousand_rows_take_no_more_memory(self, admin_client: Client) -> None:
        process, most, size = psutil.Process(), 0, 0
        reserve(100_000)
        before = process.memory_info().rss
        response: Any = admin_client.get(address(Reservation))
        for piece in response.streaming_content:
            size += len(piece)
            most = max(most, process.memory_info().rss)
        assert size > 5_000_000
        assert most - before < 16 * 1024 * 1024  # all rows at once take 55 MB

    @pytest.mark.django_db(transaction=True)
    def test_it_is_streamed_under_asgi_too(self, admin_client: Client) -> None:
        """One that is gathered first would take all memory there is."""
        reserve(3)
        user = User.objects.get(username="admin")

        async def content() -> bytes:
            client = AsyncClient()
            await client.aforce_login(user)
            response: Any = await client.get(address(Reservation))
            assert response.is_async
            return b"".join([piece async for piece in response])

        assert asyncio.run(content()).count(b"BK-") == 3


class TestWhoMay:
    def test_to_see_a_list_is_not_enough(self) -> None:
        client = staff("view_reservation")
        assert client.get(address(Reservation)).status_code == 403
        assert "Export" not in text(client.get(listing(Reservation)))

    def test_the_right_is_of_lists_that_a_person_sees(self) -> None:
        client = staff("view_reservation", "export_records")
        assert client.get(address(Reservation)).status_code == 200
        assert client.get(address(Refund)).status_code == 403
        shown = text(client.get(listing(Reservation), {"state__exact": "reserved"}))
        assert f'href="{address(Reservation)}?state__exact=reserved"' in shown

    @pytest.mark.parametrize("model", MODELS)
    def test_addresses_and_messages_need_one_of_their_own(self, model: Any) -> None:
        client = staff(f"view_{model._meta.model_name}", "export_records")
        assert client.get(address(model, private=True)).status_code == 403
        user = User.objects.get()
        user.user_permissions.add(Permission.objects.get(codename="export_private"))
        expected = 403 if model is Reservation else 200  # of which there are none
        assert client.get(address(model, private=True)).status_code == expected

    def test_without_it_there_are_none(self, admin_client: Client) -> None:
        EmailFactory.create(
            recipient="ann@example.com", state="failed", last_error="550 ann@example.com unknown"
        )
        [row] = rows(admin_client, CancellationEmail)
        assert "recipient" not in row
        assert row["last_error"] == "550 (address) unknown"
        [row] = rows(admin_client, CancellationEmail, private=True)
        assert (row["recipient"], row["last_error"]) == (
            "ann@example.com", "550 ann@example.com unknown"
        )  # fmt: skip

    def test_a_message_is_private(self, admin_client: Client) -> None:
        parked(b'{"userEmail": "ann@example.com", "eventId": "=evt"}')
        [row] = rows(admin_client, DeadLetter)
        assert row["event_id"] == "'=evt"
        assert not [name for name in row if "body" in name]
        assert "ann@" not in str(row)
        [row] = rows(admin_client, DeadLetter, private=True)
        assert row["body"] == '{"userEmail": "ann@example.com", "eventId": "=evt"}'

    def test_the_log_says_who_has_had_what_and_no_address(
        self, admin_client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        EmailFactory.create(recipient="ann@example.com")
        rows(admin_client, CancellationEmail, private=True, q="ann@example.com")
        told = caplog.messages[-1]
        assert "Exported" in told
        assert "'rows': 1" in told
        assert "'by': 'admin'" in told
        assert "ann@" not in told

    def test_nobody_else_has_it(self, client: Client) -> None:
        for model in MODELS:
            for private in (False, True):
                assert client.get(address(model, private=private)).status_code == 302
