from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from payments import webhooks

admin.site.site_header = admin.site.site_title = "Booking platform"
admin.site.index_title = "Operations"

refunds_moved = RedirectView.as_view(url="/admin/payments/refund/%(rest)s", query_string=True)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    # Where the refunds' pages were, for whoever has kept a link.
    re_path("^admin/payments/idempotencystore/(?P<rest>.*)$", refunds_moved),
    path("admin/", admin.site.urls),
    path("webhooks/stripe/", webhooks.receive),
    path("", include("django_prometheus.urls")),
]
