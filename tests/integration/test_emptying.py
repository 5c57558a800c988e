"""The database between two tests: nothing that the first has committed is there for the second."""

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.test import TransactionTestCase

from booking_platform.messaging.models import ProcessedEvent
from catalog.models import Tour
from tests.emptying import empty_quickly
from tests.events import created
from tests.integration.admin_pages import CREATED, settle


def empty() -> None:
    empty_quickly(TransactionTestCase())


@pytest.fixture(autouse=True)
def as_django_makes_it(transactional_db: None) -> None:
    empty()


class TestEmptying:
    def test_what_was_committed_is_gone(self, tour: Tour) -> None:
        settle(CREATED, created(tour.pk, "B"))
        assert tour.reservations.count() == ProcessedEvent.objects.count() == 1
        empty()
        assert Tour.objects.count() == ProcessedEvent.objects.count() == 0

    def test_what_django_itself_makes_stays(self) -> None:
        before = list(Permission.objects.order_by("pk").values_list("pk", "codename"))
        empty()
        assert before
        assert list(Permission.objects.order_by("pk").values_list("pk", "codename")) == before

    def test_what_a_test_has_changed_of_that_is_made_anew(self) -> None:
        before = set(Permission.objects.values_list("codename", flat=True))
        own = ContentType.objects.create(app_label="a", model="b")
        Permission.objects.create(content_type=own, codename="nonsense")
        Permission.objects.filter(codename="add_tour").delete()
        empty()
        assert set(Permission.objects.values_list("codename", flat=True)) == before
