from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from payments import webhooks

admin.site.site_header = admin.site.site_title = "Booking platform"
admin.site.index_title = "Operations"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("webhooks/stripe/", webhooks.receive),
    path("", include("django_prometheus.urls")),
]
