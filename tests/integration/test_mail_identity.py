"""Who the platform says it is to mail servers, and what they think of it: never the mail's fault."""

import socket
from typing import Any

import pytest
from django.core.mail.utils import DNS_NAME

from booking_platform.development.mail_server import DATA, EHLO, HELO, MAIL, RCPT, MailServer
from notifications import smtp
from notifications.answers import MESSAGE, Verdict
from notifications.rules import verdict
from tests.emails import cancel, only

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

# Postfix says these to RCPT, after it has taken EHLO and MAIL.
ABOUT_US = [
    "504 5.5.2 <web-1>: Helo command rejected: need fully-qualified hostname",
    "501 5.5.2 <[::1]>: Helo command rejected: invalid ip address",
    "550 5.7.1 <web-1>: Helo command rejected: Host not found",
    "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied",
    "550 5.7.25 The IP address has no PTR record",
    "503 5.5.1 Error: send HELO/EHLO first",
    "503 Bad sequence",
    "502 not here",
    "521 no mail here",
    "530 5.7.0 Must issue a STARTTLS command first",
]


class TestAnswersAboutUs:
    @pytest.mark.parametrize("answer", ["504 no", "550 who?", "501 5.5.4 bad name", "421 later"])
    def test_a_refused_name_is_tried_again(self, mail_server: MailServer, answer: str) -> None:
        mail_server.fail(EHLO, answer)
        mail_server.fail(HELO, answer)
        cancel()
        assert (only().state, mail_server.received()) == ("pending", [])

    @pytest.mark.parametrize("step", [MAIL, RCPT, DATA])
    @pytest.mark.parametrize("answer", ABOUT_US)
    def test_a_late_answer_is_tried_again(
        self, mail_server: MailServer, step: str, answer: str
    ) -> None:
        mail_server.fail(step, answer)
        cancel()
        row = only()
        assert row.state == "pending"
        assert row.next_attempt_at is not None
        assert answer[:3] in row.last_error

    @pytest.mark.parametrize(
        "answer",
        ["550 5.1.1 No such user", "501 5.1.3 Bad recipient address syntax", "554 5.7.1 Relay denied",
         "553 no", "556 5.1.10 no mail for this domain", "550 5.1.1 No user helophile", "552 full"],
    )  # fmt: skip
    def test_what_is_said_of_the_mail_still_counts(self, answer: str) -> None:
        assert verdict(RCPT, int(answer[:3]), answer[4:]) is Verdict.REFUSED

    @pytest.mark.parametrize("answer", ABOUT_US)
    def test_after_the_message_a_refusal_is_one(self, answer: str) -> None:
        assert verdict(MESSAGE, int(answer[:3]), answer[4:]) is Verdict.REFUSED


class TestOurName:
    def test_it_is_the_setting(self, mail_server: MailServer, settings: Any) -> None:
        settings.SMTP_EHLO = "tours.example.com"
        cancel()
        assert mail_server.names == ["tours.example.com"]
        assert only().state == "sent"

    @pytest.mark.parametrize(
        ("machine", "told"),
        [
            ("web-1.example.com", "web-1.example.com"),
            ("web-1.example.com.", "web-1.example.com"),
            ("web-1", "[127.0.0.1]"),
            ("localhost.localdomain", "[127.0.0.1]"),
            ("1.0.0.127.in-addr.arpa", "[127.0.0.1]"),
            ("web_1 x.example", "[127.0.0.1]"),
            ("10.0.0.1", "[127.0.0.1]"),
        ],
    )
    def test_it_is_the_machines_whole_name_or_its_address(
        self, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch, machine: str, told: str
    ) -> None:
        monkeypatch.setattr(DNS_NAME, "_fqdn", machine, raising=False)
        cancel()
        assert mail_server.names == [told]
        assert only().state == "sent"

    def test_an_address_of_ipv6_is_named_as_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(DNS_NAME, "_fqdn", "web-1", raising=False)
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            assert smtp.own_name(server) == "[IPv6:::1]"
