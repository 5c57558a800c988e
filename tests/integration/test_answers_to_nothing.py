"""What the admin says where there is nothing to show: no page, no record, no such choice of a filter."""

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse

from booking_platform.operations.models import AuditRun
from booking_platform.operations.records import ChoiceFilter
from catalog.models import Tour
from payments.models import Refund
from tests.integration.admin_pages import listing, staff, text

pytestmark = pytest.mark.django_db

CHOICES = [
    (model, each)
    for model, its in admin.site._registry.items()
    for each in its.list_filter
    if isinstance(each, type) and issubclass(each, ChoiceFilter)
]


class TestAFilter:
    def test_there_are_some_of_choices(self) -> None:
        assert {each.parameter_name for _, each in CHOICES} == {
            "person", "due", "findings", "published", "seen", "seats",
        }  # fmt: skip

    @pytest.mark.parametrize(("model", "its"), CHOICES)
    def test_a_choice_that_it_has_not_is_refused_and_not_ignored(
        self, admin_client: Client, model: type, its: type[ChoiceFilter]
    ) -> None:
        answer = admin_client.get(listing(model), {str(its.parameter_name): "f\u202eoo"})
        assert answer.status_code == 400
        assert f"'{its.parameter_name}' has no choice" in answer.content.decode()

    @pytest.mark.parametrize(("model", "its"), CHOICES)
    def test_none_is_no_filter(
        self, admin_client: Client, model: type, its: type[ChoiceFilter]
    ) -> None:
        assert admin_client.get(listing(model), {str(its.parameter_name): ""}).status_code == 200


class TestAnEmptyList:
    @pytest.mark.parametrize("model", [Refund, AuditRun])
    def test_it_offers_nothing_that_nobody_can_do(self, admin_client: Client, model: type) -> None:
        shown = text(admin_client.get(listing(model)))
        assert "Create a new item" not in shown
        assert "nobody adds them here" in shown

    def test_it_leads_to_a_new_tour_whoever_may_add_one(self) -> None:
        address = f'href="{reverse("admin:catalog_tour_add")}'
        client = staff("view_tour", "add_tour")
        shown = text(client.get(listing(Tour)))
        assert address in shown
        assert "nobody adds them here" not in shown

    def test_it_does_not_for_whoever_may_not(self) -> None:
        shown = text(staff("view_tour").get(listing(Tour)))
        assert f'href="{reverse("admin:catalog_tour_add")}' not in shown


class TestNoPage:
    def test_it_is_said_with_and_without_a_login(
        self, client: Client, admin_client: Client
    ) -> None:
        for browser, address in ((client, "/nowhere"), (admin_client, "/admin/nowhere/")):
            answer = browser.get(address)
            assert answer.status_code == 404
            said = answer.content.decode()
            assert "There is no such page" in said
            assert f'href="{reverse("admin:index")}"' in said
