"""The look of the admin: its name, its colours, and what stands in its side bar."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

TITLE = "Booking platform"


def _may_view(model: str) -> Callable[[HttpRequest], bool]:
    app_label, _, name = model.partition(".")
    return lambda request: bool(request.user.has_perm(f"{app_label}.view_{name}"))


def _list(title: str, icon: str, model: str) -> dict[str, Any]:
    """Return the side bar's link to the list of a model, for whoever may view it."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{model.replace('.', '_')}_changelist"),
        "permission": _may_view(model),
    }


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": TITLE,
    "SITE_HEADER": TITLE,
    "SITE_SYMBOL": "luggage",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda _request: static("operations/favicon.svg"),
        }
    ],
    "SHOW_BACK_BUTTON": True,
    "STYLES": [lambda _request: static("operations/admin.css")],
    # Blue: its 600 under white and on white, and its 400 on the dark theme, keep a contrast over 4.5.
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        }
    },
    "DASHBOARD_CALLBACK": "booking_platform.operations.dashboard_page.show",
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": [
            {
                "items": [
                    {
                        "title": "Overview",
                        "icon": "monitoring",
                        "link": reverse_lazy("admin:index"),
                    },
                    {
                        "title": "Story of a booking",
                        "icon": "history",
                        "link": reverse_lazy("story"),
                    },
                ],
            },
            {
                "title": "Seats",
                "separator": True,
                "items": [
                    _list("Tours", "tour", "catalog.tour"),
                    _list("Reservations", "confirmation_number", "catalog.reservation"),
                ],
            },
            {
                "title": "Customers",
                "separator": True,
                "items": [
                    _list("Refunds", "payments", "payments.refund"),
                    _list("E-mails", "mail", "notifications.cancellationemail"),
                ],
            },
            {
                "title": "Events",
                "separator": True,
                "items": [
                    _list("Dead letters", "error", "messaging.deadletter")
                    | {"link": reverse_lazy("admin:messaging_deadletter_groups")},
                    _list("Jobs", "playlist_play", "messaging.deadletter")
                    | {"link": reverse_lazy("admin:operations_bulkjob_changelist")},
                    _list("Processed events", "checklist", "messaging.processedevent"),
                ],
            },
            {
                "title": "Platform",
                "separator": True,
                "items": [
                    _list("Audits", "fact_check", "operations.auditrun"),
                    _list("Announcements", "campaign", "messaging.outboxrow"),
                    _list("Workers", "memory", "messaging.heartbeat"),
                    _list("Counts by minute", "bar_chart", "operations.tally"),
                ],
            },
            {
                "title": "People",
                "separator": True,
                "items": [
                    _list("Users", "person", "auth.user"),
                    _list("Roles", "group", "auth.group"),
                ],
            },
        ],
    },
}
