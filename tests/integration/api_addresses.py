"""The addresses of the web process where the API is on."""

from django.urls import path

from booking_platform import urls
from catalog.api.tours import api

urlpatterns = [*urls.urlpatterns, path("api/", api.urls)]
