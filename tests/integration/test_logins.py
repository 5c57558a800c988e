"""Failed logins: after some, nobody is let in under that name from that address for a while."""

from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client, RequestFactory
from django.utils import timezone

from booking_platform.messaging.retention import CLEANUP
from booking_platform.operations.clients import address
from booking_platform.operations.logins import forget_failed_logins

pytestmark = pytest.mark.django_db

WORD = "a-good-password-1"


@pytest.fixture(autouse=True)
def _ann() -> None:
    User.objects.create_superuser("ann", password=WORD)
    User.objects.create_superuser("bob", password=WORD)


def login(client: Client, name: str = "ann", word: str = "wrong", **meta: Any) -> Any:
    return client.post("/admin/login/?next=/admin/", {"username": name, "password": word}, **meta)


def fail(client: Client, times: int, **options: Any) -> Any:
    return [login(client, **options) for _ in range(times)][-1]


def test_a_wrong_password_may_be_corrected(client: Client) -> None:
    assert fail(client, 4).status_code == 200
    assert login(client, word=WORD).status_code == 302
    assert fail(client, 4).status_code == 200  # counted anew


def test_after_five_not_even_the_right_one_is_taken(client: Client) -> None:
    page = fail(client, 5)
    assert page.status_code == 429
    assert login(client, word=WORD).status_code == 429
    said = page.content.decode()
    for what in (
        "Too many failed logins",
        ">ann</strong>",
        "Wait 15 minutes",
        "axes_reset_username",
    ):
        assert what in said


def test_others_are_not_locked_out(client: Client) -> None:
    fail(client, 5)
    assert login(client, "bob", WORD).status_code == 302
    assert login(Client(REMOTE_ADDR="192.0.2.7"), "ann", WORD).status_code == 302


def test_another_browser_is_the_same_client(client: Client) -> None:
    for number in range(5):
        login(client, HTTP_USER_AGENT=f"browser {number}")
    assert login(client, word=WORD, HTTP_USER_AGENT="another").status_code == 429


def test_it_ends_by_itself_though_somebody_goes_on_trying(client: Client) -> None:
    fail(client, 5)
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=14))
    assert fail(client, 3).status_code == 429
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert login(client, word=WORD).status_code == 302


def test_somebody_with_a_shell_can_lift_it(client: Client) -> None:
    fail(client, 5)
    call_command("axes_reset_username", "ann")
    assert login(client, word=WORD).status_code == 302


def test_no_password_is_kept(client: Client) -> None:
    fail(client, 2, word="hidden-word")
    [kept] = AccessAttempt.objects.values()
    assert "hidden-word" not in str(kept)


def test_the_nightly_cleanup_forgets_them(client: Client) -> None:
    assert forget_failed_logins in CLEANUP
    fail(client, 1)
    assert forget_failed_logins() == 0
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(hours=25))
    assert forget_failed_logins() == 1
    assert not AccessAttempt.objects.exists()


class TestTheAddressOfAClient:
    @pytest.mark.parametrize(
        ("proxies", "forwarded", "remote", "found"),
        [
            (0, None, "192.0.2.1", "192.0.2.1"),
            (0, "203.0.113.9", "192.0.2.1", "192.0.2.1"),  # nobody has vouched for it
            (1, "203.0.113.9", "10.0.0.1", "203.0.113.9"),
            (1, "1.1.1.1, 203.0.113.9", "10.0.0.1", "203.0.113.9"),  # the first is the client's lie
            (2, "1.1.1.1,203.0.113.9,10.0.0.2", "10.0.0.1", "203.0.113.9"),
            (2, "203.0.113.9", "10.0.0.1", "10.0.0.1"),  # came past the outer proxy
            (1, None, "10.0.0.1", "10.0.0.1"),
            (1, "nonsense", "10.0.0.1", "10.0.0.1"),
            (1, "203.0.113.9:4711", "10.0.0.1", "203.0.113.9"),
            (1, "[2001:db8::1]:4711", "10.0.0.1", "2001:db8::1"),
            (0, None, "::ffff:192.0.2.1", "192.0.2.1"),
            (0, None, "", None),  # a Unix socket
        ],
    )
    def test_it_is_what_our_own_proxies_say(
        self, settings: Any, proxies: int, forwarded: str | None, remote: str, found: str
    ) -> None:
        settings.PROXY_COUNT = proxies
        request = RequestFactory().get("/", REMOTE_ADDR=remote)
        if forwarded:
            request.META["HTTP_X_FORWARDED_FOR"] = forwarded
        assert address(request) == found

    def test_clients_behind_a_proxy_are_told_apart(self, client: Client, settings: Any) -> None:
        settings.PROXY_COUNT = 1
        for number in range(5):  # whatever it writes in front
            login(client, HTTP_X_FORWARDED_FOR=f"198.51.100.{number}, 203.0.113.9")
        assert login(client, word=WORD, HTTP_X_FORWARDED_FOR="203.0.113.9").status_code == 429
        assert login(client, word=WORD, HTTP_X_FORWARDED_FOR="203.0.113.8").status_code == 302

    def test_a_client_without_an_address_is_counted_too(self, client: Client) -> None:
        assert fail(client, 5, REMOTE_ADDR="").status_code == 429
