from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.shortcuts import render
from django.urls import path, re_path
from django.views.generic import RedirectView

from booking_platform import web_metrics
from booking_platform.operations import story_page
from payments import webhooks

admin.site.index_title = "Operations"

refunds_moved = RedirectView.as_view(url="/admin/payments/refund/%(rest)s", query_string=True)


def nothing(_request: HttpRequest) -> HttpResponse:
    """Answer for a page of the theme that nothing leads to, and that fails where a query is not its own."""
    return HttpResponseNotFound("There is no such page.", content_type="text/plain")


def not_allowed(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  (Django's)
    """Say that the person may not do this, and whom to ask."""
    return render(request, "403.html", admin.site.each_context(request), status=403)


def not_there(request: HttpRequest, exception: Exception) -> HttpResponse:  # noqa: ARG001  (Django's)
    """Say that there is no such page: of what was asked for nothing is repeated."""
    return render(request, "404.html", admin.site.each_context(request), status=404)


handler403 = "booking_platform.urls.not_allowed"
handler404 = "booking_platform.urls.not_there"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    # Where the refunds' pages were, for whoever has kept a link.
    re_path("^admin/payments/idempotencystore/(?P<rest>.*)$", refunds_moved),
    path("admin/story/", admin.site.admin_view(story_page.show), name="story"),
    path("admin/search/", nothing),
    path("admin/", admin.site.urls),
    path("webhooks/stripe/", webhooks.receive),
    path("metrics", web_metrics.show, name="prometheus-django-metrics"),
]

if settings.API_ENABLED:
    from catalog.api.tours import api

    urlpatterns.append(path("api/", api.urls))
