"""A web shop that asks a real web process, while a real worker follows what is announced."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from booking_platform.development.processes import PythonProcess, running
from catalog.models import TourAvailability
from tests.events import availability, cancelled, created
from tests.factories import TourFactory
from tests.platform import Platform, parked
from tests.servers import free_port, listens, wait_until

KEY = "tour.availability-changed"
SHOP = {"Origin": "https://shop.example"}

Web = Callable[..., str]


@pytest.fixture
def web(platform: Platform, tmp_path: Path) -> Iterator[Web]:
    """Start the web process with variables of the environment; return its address."""
    with ExitStack() as stack:

        def start(**variables: str) -> str:
            port = free_port()
            command = ("manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
            environment = platform.environment | variables
            process = PythonProcess(*command, log_file=tmp_path / "web.log", env=environment)
            stack.enter_context(running(process))
            wait_until(lambda: listens(port), what=f"a web process: {process.log}")
            return f"http://127.0.0.1:{port}"

        yield start


class TestAWebShop:
    def test_it_sees_each_change_and_asks_for_nothing_twice(
        self, platform: Platform, web: Web
    ) -> None:
        tours = [TourFactory.create(capacity=20) for _ in range(3)]
        platform.start("-c", "2", "-Q", "catalog", API_ENABLED="true")
        address = web(API_ENABLED="true", API_CORS_ORIGINS=SHOP["Origin"]) + "/api/tours/"

        def announce(version: int, free: int) -> None:
            events = [
                availability(tour.pk, version - old, free + old) for tour in tours for old in (0, 1)
            ]
            platform.publish([*events, *events], key=KEY)
            newest = TourAvailability.objects.filter(version=version)
            platform.wait_for(lambda: newest.count() == len(tours), f"version {version}")

        announce(10, 5)
        first = requests.get(address, headers=SHOP, timeout=60)
        assert [tour["available"] for tour in first.json()["tours"]] == [5, 5, 5]
        assert first.headers["Access-Control-Allow-Origin"] == SHOP["Origin"]
        tag = {"If-None-Match": first.headers["ETag"]}
        again = requests.get(address, headers=tag, timeout=60)
        assert (again.status_code, again.content) == (304, b"")

        announce(12, 0)
        changed = requests.get(address, headers=tag, timeout=60)
        assert changed.status_code == 200
        assert [tour["version"] for tour in changed.json()["tours"]] == [12, 12, 12]
        assert requests.get(f"{address}?seats=1", timeout=60).json()["tours"] == []
        head = requests.head(address, timeout=60)
        assert (head.headers["ETag"], head.content) == (changed.headers["ETag"], b"")
        assert "Set-Cookie" not in changed.headers
        assert parked() == []

    def test_it_sees_what_bookings_leave(self, platform: Platform, web: Web) -> None:
        """From the booking through the outbox and the read model to the page of the shop."""
        tours = [TourFactory.create(capacity=100) for _ in range(3)]
        platform.start("-c", "2", API_ENABLED="1")
        address = web(API_ENABLED="1") + "/api/tours/"
        platform.publish(created(tours[n % 2].pk, f"B{n}") for n in range(300))
        platform.wait_for_processed(300, queue="tour-catalog.booking-created")

        def free() -> list[int]:
            answer = requests.get(address, timeout=60)
            return [tour["available"] for tour in answer.json()["tours"]]

        platform.wait_for(lambda: free() == [0, 0, 100], "the shop shows what is free")
        platform.publish([cancelled(tours[0].pk, "B0", 1)], key="booking.cancelled")
        platform.wait_for(lambda: free() == [1, 0, 100], "the shop shows the seat given back")
        announced = TourAvailability.objects.values_list("tour_id", "available")
        platform.wait_for(
            lambda: dict(announced.all()) == {tours[0].pk: 1, tours[1].pk: 0, tours[2].pk: 100},
            "the read model equals the tours",
        )
        assert parked() == []

    def test_without_the_setting_there_is_no_api(self, platform: Platform, web: Web) -> None:
        tour = TourFactory.create()
        address = web(API_CORS_ORIGINS=SHOP["Origin"])
        for path in ("/api/", "/api/tours/", f"/api/tours/{tour.pk}/", "/api/openapi.json"):
            answer = requests.get(address + path, headers=SHOP, timeout=60)
            assert answer.status_code == 404
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert requests.get(address + "/admin/login/", timeout=60).status_code == 200
