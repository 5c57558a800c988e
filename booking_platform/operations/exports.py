"""Lists as CSV: what a person has filtered, row by row, however many rows there are.

A spreadsheet takes a cell that begins with certain characters for a formula, and whoever publishes events
chooses what stands in a cell. Such a cell gets an apostrophe in front (OWASP, "CSV Injection"); a cell that
begins with one gets another, so that nothing is lost: one apostrophe at the start is to be taken off.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import structlog
from asgiref.sync import sync_to_async
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, StreamingHttpResponse
from django.urls import path, reverse

from booking_platform.messaging import clock
from booking_platform.messaging.paging import in_pages
from booking_platform.operations.records import AnyModelAdmin
from booking_platform.redaction import redacted_text

log = structlog.get_logger(__name__)

RIGHT, PRIVATE_RIGHT = "operations.export_records", "operations.export_private"
PAGE = 500  # rows a query, and in memory
PAGE_OF_BODIES = 10  # each as large as an event may be

# Also behind what a spreadsheet skips, and as wide forms of the same characters.
_FORMULA = re.compile(
    r"[\s\x00-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n']"
)


def as_cell(value: object) -> str:
    """Return a value as the text of a cell, exact, and for no spreadsheet a formula."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        case bytes() | memoryview():
            return _defused(bytes(value).decode(errors="backslashreplace"))
        case str():
            return _defused(value)
    return str(value)  # a number of ours


def _defused(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


@dataclass(frozen=True)
class Column:
    """A column of a CSV file.

    ``shown`` makes its value of the fields. A ``private`` column is there for those alone who may export
    addresses and messages; of a ``foreign`` text the others get the addresses cut out.
    """

    name: str
    fields: tuple[str, ...] = ()
    shown: Callable[..., object] = lambda value: value
    private: bool = False
    foreign: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        return self.fields or (self.name,)


def columns(*names: str) -> list[Column]:
    """Return columns that are fields of the model as they are."""
    return [Column(name) for name in names]


class ExportsAdmin(AnyModelAdmin):
    """A list that can be had as CSV, by whoever may view it and has the right to export."""

    exported: ClassVar[Sequence[Column]] = ()
    exported_page: ClassVar[int] = PAGE
    list_before_template: Any = "admin/operations/before_list.html"

    def get_urls(self) -> list[Any]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        view = self.admin_site.admin_view
        return [
            path("export/", view(self.export), name=name),
            path("export/private/", view(self.export_private), name=f"{name}_private"),
            *super().get_urls(),
        ]

    def export(self, request: HttpRequest) -> HttpResponseBase:
        """Return the list as it is filtered, without addresses and messages."""
        return self._export(request, private=False)

    def export_private(self, request: HttpRequest) -> HttpResponseBase:
        """Return the list as it is filtered, with addresses and messages."""
        return self._export(request, private=True)

    def may_export(self, request: HttpRequest, *, private: bool = False) -> bool:
        """Return whether a person may have the list as CSV."""
        user = request.user
        if private and not (user.has_perm(PRIVATE_RIGHT) and self.has_private_columns):
            return False
        return user.has_perm(RIGHT) and self.has_view_permission(request)

    @property
    def has_private_columns(self) -> bool:
        return any(column.private or column.foreign for column in self.exported)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        exports = [
            (label, f"{reverse(f'admin:{self._export_name}{suffix}')}?{request.GET.urlencode()}")
            for label, suffix, private in (
                ("Export as CSV", "", False),
                ("Export with addresses and messages", "_private", True),
            )
            if self.may_export(request, private=private)
        ]
        return super().changelist_view(request, {"exports": exports, **(extra_context or {})})

    @property
    def _export_name(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_export"

    def _export(self, request: HttpRequest, *, private: bool) -> HttpResponseBase:
        if not self.may_export(request, private=private):
            raise PermissionDenied
        try:
            rows = self.get_changelist_instance(request).get_queryset(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(
                reverse(f"admin:{self._export_name.removesuffix('export')}changelist")
            )
        lines = self._lines(rows, private=private)
        told = _told(lines, by=request.user.get_username(), what=self.opts.label, private=private)
        content = _asynchronously(told) if isinstance(request, ASGIRequest) else told
        name = f"{self.opts.verbose_name_plural}-{clock.now():%Y-%m-%dT%H%M}Z.csv".replace(" ", "-")
        return StreamingHttpResponse(
            content,
            content_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def _lines(self, rows: QuerySet[Any], *, private: bool) -> Iterator[list[str]]:
        """Yield the head of the file, then a line for each row that is there now."""
        chosen = [column for column in self.exported if private or not column.private]
        yield [column.name for column in chosen]
        fields = list(dict.fromkeys(field for column in chosen for field in column.sources))
        size = self.exported_page if private else PAGE
        for row in in_pages(rows.values_list("pk", *fields), size):
            values = dict(zip(fields, row[1:], strict=True))
            yield [_cell(column, values, private=private) for column in chosen]


def _cell(column: Column, values: dict[str, Any], *, private: bool) -> str:
    value = column.shown(*(values[field] for field in column.sources))
    if column.foreign and not private:
        value = redacted_text(str(value or ""))
    return as_cell(value)


def _told(lines: Iterator[list[str]], *, by: str, what: str, private: bool) -> Iterator[bytes]:
    """Yield the file in pieces, and log who has had how much of it."""
    rows = -1  # the head is none
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    buffer.write("\ufeff")  # or Excel takes UTF-8 for something else
    try:
        for line in lines:
            writer.writerow(line)
            rows += 1
            if buffer.tell() > 1 << 16:
                yield _taken(buffer)
        yield _taken(buffer)
    finally:
        log.info("Exported", what=what, rows=max(0, rows), private=private, by=by)


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode(errors="backslashreplace")


async def _asynchronously(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    take = sync_to_async(lambda: next(pieces, None))
    while (piece := await take()) is not None:
        yield piece
