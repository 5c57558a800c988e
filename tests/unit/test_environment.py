import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from booking_platform import environment as env
from booking_platform import servers
from tests.telemetry import full_disk
from tests.unit.environments import MAIL, PRODUCTION, STRIPE


class TestText:
    @pytest.mark.parametrize(
        ("value", "read"), [("a b", "a b"), (" a ", "a"), ("", "default"), (" \t", "default")]
    )
    def test_it_counts_nothing_as_not_set(
        self, monkeypatch: pytest.MonkeyPatch, value: str, read: str
    ) -> None:
        monkeypatch.setenv("X", value)

        assert env.text("X", "default") == read

    def test_it_has_a_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("X", raising=False)

        assert (env.text("X"), env.text("X", "default")) == ("", "default")


class TestAChoice:
    @pytest.mark.parametrize(("value", "read"), [("tls", "tls"), (" none ", "none"), ("", "none")])
    def test_it_is_one_of_its_options(
        self, monkeypatch: pytest.MonkeyPatch, value: str, read: str
    ) -> None:
        monkeypatch.setenv("X", value)

        assert env.choice("X", ("none", "tls"), "none") == read

    @pytest.mark.parametrize("value", ["ssl", "TLS", "none,tls"])
    def test_anything_else_is_refused(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("X", value)

        with pytest.raises(ImproperlyConfigured) as refused:
            env.choice("X", ("none", "tls"), "none")
        assert str(refused.value) == f"X is {value!r}: set it to one of none, tls."


class TestANumber:
    @pytest.mark.parametrize(
        ("value", "read"), [("5", 5), (" 7 ", 7), ("", 3), ("999999999", 10**9 - 1)]
    )
    def test_an_integer_is_read(
        self, monkeypatch: pytest.MonkeyPatch, value: str, read: int
    ) -> None:
        monkeypatch.setenv("X", value)

        assert env.integer("X", 3, minimum=2) == read
        assert isinstance(env.integer("X", 3, minimum=2), int)

    @pytest.mark.parametrize(
        ("value", "read"), [("5", 5.0), ("0.25", 0.25), ("1e-3", 0.001), ("", 3.5)]
    )
    def test_seconds_may_have_a_fraction(
        self, monkeypatch: pytest.MonkeyPatch, value: str, read: float
    ) -> None:
        monkeypatch.setenv("X", value)

        assert env.seconds("X", 3.5) == read
        assert isinstance(env.seconds("X", 3.5), float)

    @pytest.mark.parametrize("value", ["1", "0", "-5", "1000000000", "9" * 30])
    def test_it_is_refused_out_of_bounds(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("X", value)

        for read, kind in ((env.integer, "whole number"), (env.seconds, "number")):
            with pytest.raises(ImproperlyConfigured) as refused:
                read("X", 3, minimum=2)
            assert str(refused.value).startswith(f"X is {value!r}: set it to a {kind}, 2 or more")

    @pytest.mark.parametrize("value", ["five", "5s", "1,5", "0x10", "--5", "5 6", "None"])
    def test_it_is_refused_if_it_is_none(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("X", value)

        for read, kind in ((env.integer, "whole number"), (env.seconds, "number")):
            with pytest.raises(ImproperlyConfigured) as refused:
                read("X", 3)
            assert str(refused.value) == f"X is {value!r}: set it to a {kind}, 0 or more."

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
    def test_seconds_end(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("X", value)

        with pytest.raises(ImproperlyConfigured, match=f"^X is '{value}': set it to a number"):
            env.seconds("X", 3)

    def test_an_integer_has_no_fraction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("X", "1.5")

        with pytest.raises(ImproperlyConfigured, match=r"^X is '1.5': set it to a whole number"):
            env.integer("X", 3)


class TestWhatIsRequired:
    def test_it_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("X", "value")

        assert env.required("X", "set it") == "value"

    @pytest.mark.parametrize("value", ["", " "])
    def test_it_is_refused_where_it_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, value: str
    ) -> None:
        monkeypatch.setenv("X", value)

        with pytest.raises(ImproperlyConfigured) as refused:
            env.required("X", "set it to a key")
        assert str(refused.value) == (
            "X is not set, and nothing falls back in production: set it to a key."
        )


class TestAWritableFolder:
    def test_it_is_made(self, tmp_path: Path) -> None:
        env.writable_folder("X", tmp_path / "a" / "b")

        assert list((tmp_path / "a" / "b").iterdir()) == []

    def test_one_that_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "kept").touch()

        env.writable_folder("X", tmp_path)

        assert [file.name for file in tmp_path.iterdir()] == ["kept"]

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("file", "it is not a folder"),
            ("file/below", "Not a directory"),
            ("/proc/self", "No such file or directory"),  # read-only, even for root
        ],
    )
    def test_any_other_is_refused(self, tmp_path: Path, name: str, why: str) -> None:
        (tmp_path / "file").touch()
        folder = tmp_path / name

        with pytest.raises(ImproperlyConfigured) as refused:
            env.writable_folder("X", folder)
        assert str(refused.value) == (
            f"X is {str(folder)!r}, and no file can be written there ({why}): set it to a folder "
            "with room that this process may write to."
        )

    def test_one_without_room_is_refused(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            folder = full_disk(stack, tmp_path / "disk")

            with pytest.raises(ImproperlyConfigured, match="No space left on device"):
                env.writable_folder("X", folder)


class TestMetrics:
    @pytest.mark.parametrize(
        ("value", "folder"),
        [
            ("", "{0}/metrics"),
            (" ", "{0}/metrics"),
            ("/a/b", "/a/b"),
            ("here", f"{Path.cwd()}/here"),
        ],
    )
    def test_their_folder_is_named_or_falls_back(
        self,
        read_settings: Callable[..., dict[str, Any]],
        tmp_path: Path,
        value: str,
        folder: str,
    ) -> None:
        settings = read_settings(PROMETHEUS_MULTIPROC_DIR=value)

        assert str(settings["METRICS_DIR"]) == folder.format(tmp_path)

    @pytest.mark.parametrize("module", ["wsgi", "asgi"])
    def test_the_web_process_does_not_start_without_it(
        self,
        python: Callable[..., subprocess.CompletedProcess[str]],
        tmp_path: Path,
        module: str,
    ) -> None:
        (tmp_path / "file").touch()
        start = ("-c", f"import booking_platform.{module}")

        done = python(*start, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file"))

        assert done.returncode == 1
        assert "ImproperlyConfigured: PROMETHEUS_MULTIPROC_DIR is" in done.stderr
        assert "(it is not a folder)" in done.stderr
        assert python(*start).returncode == 0

    def test_a_command_runs_without_it(
        self, python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()

        done = python("manage.py", "check", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file"))

        assert done.returncode == 0
        assert done.stderr.count("Metrics can't be written to their file") == 1


class TestDevelopment:
    def test_everything_falls_back_on_the_embedded(
        self, read_settings: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        settings = read_settings()

        assert settings["DATABASES"]["default"]["NAME"] == f"{tmp_path}/db.sqlite3"
        assert settings["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
        assert servers.broker_url().startswith("embedded://")
        folders = settings["CELERY_BROKER_TRANSPORT_OPTIONS"]
        assert folders["data_folder_in"] == folders["data_folder_out"]
        assert folders["data_folder_in"].startswith(str(tmp_path))

    def test_each_part_falls_back_on_its_own(
        self, read_settings: Callable[..., dict[str, Any]]
    ) -> None:
        with_database = read_settings(DATABASE_URL=PRODUCTION["DATABASE_URL"])
        assert with_database["DATABASES"]["default"]["HOST"] == "host"
        assert with_database["EMBEDDED"]
        assert servers.broker_url().startswith("embedded://")

        with_broker = read_settings(RABBITMQ_URL=PRODUCTION["RABBITMQ_URL"], DATABASE_URL=" ")
        assert with_broker["DATABASES"]["default"]["ENGINE"].endswith("sqlite3")
        assert not with_broker["EMBEDDED"]
        assert servers.broker_url() == PRODUCTION["RABBITMQ_URL"]

    def test_stripe_falls_back_on_the_sandbox_unless_there_is_a_key(
        self, read_settings: Callable[..., dict[str, Any]]
    ) -> None:
        assert read_settings()["STRIPE_API_BASE"] == "http://127.0.0.1:12111"
        with_key = read_settings(STRIPE_SECRET_KEY="sk_test_x")
        assert with_key["STRIPE_API_BASE"] == "https://api.stripe.com"
        with_base = read_settings(STRIPE_API_BASE="http://localhost:1/")
        assert with_base["STRIPE_API_BASE"] == "http://localhost:1"
        assert with_base["STRIPE_SECRET_KEY"] == "sk_test_sandbox"

    def test_refunds_have_no_limit_unless_one_is_named(
        self, read_settings: Callable[..., dict[str, Any]]
    ) -> None:
        assert read_settings()["REFUND_REVIEW_ABOVE"] == {}
        limits = read_settings(REFUND_REVIEW_ABOVE=" EUR:50000, jpy : 80000,")
        assert limits["REFUND_REVIEW_ABOVE"] == {"eur": 50_000, "jpy": 80_000}
        assert read_settings(REFUND_REVIEW_ABOVE="eur:0")["REFUND_REVIEW_ABOVE"] == {"eur": 0}

    @pytest.mark.parametrize(
        "limits",
        ["50000", "eur", "eur:", "eur:-1", "eur:500.00", "euro:5", "zzz:5", "eur=5", "eur:5;jpy:5",
         "eur:1,eur:2", "eur:1_000", "eur:٣"],
    )  # fmt: skip
    def test_a_limit_that_can_not_be_read_is_refused(
        self, read_settings: Callable[..., dict[str, Any]], limits: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"REFUND_REVIEW_ABOVE (has|names) .*:"):
            read_settings(REFUND_REVIEW_ABOVE=limits)

    def test_mails_become_files_unless_there_is_a_server(
        self, read_settings: Callable[..., dict[str, Any]], tmp_path: Path
    ) -> None:
        settings = read_settings()
        assert settings["SMTP_HOST"] == settings["MAIL_FILES"]
        assert tmp_path / "mail" == settings["MAIL_DIR"]
        assert read_settings(SMTP_HOST="smtp.example.com")["SMTP_HOST"] == "smtp.example.com"

    @pytest.mark.parametrize(
        ("variables", "security", "port"),
        [
            ({"SMTP_HOST": "smtp.example.com"}, "starttls", 587),
            ({"SMTP_HOST": "127.0.0.1"}, "none", 25),
            ({"SMTP_HOST": "[::1]"}, "none", 25),
            ({"SMTP_HOST": "smtp.example.com", "SMTP_SECURITY": "tls"}, "tls", 465),
            ({"SMTP_HOST": "smtp.example.com", "SMTP_SECURITY": "none"}, "none", 25),
            ({"SMTP_HOST": "localhost", "SMTP_PORT": "2525"}, "none", 2525),
        ],
    )
    def test_mail_is_encrypted_unless_it_stays_on_this_machine(
        self,
        read_settings: Callable[..., dict[str, Any]],
        variables: dict[str, str],
        security: str,
        port: int,
    ) -> None:
        settings = read_settings(**variables)
        assert (settings["SMTP_SECURITY"], settings["SMTP_PORT"]) == (security, port)

    @pytest.mark.parametrize(
        "sender",
        [
            "noreply@example.com",
            "Example Tours <noreply@example.com>",
            '"Tours: Paris" <noreply@example.com>',
            "Été <a@été.fr>",
        ],
    )
    def test_the_sender_may_have_a_name(
        self, read_settings: Callable[..., dict[str, Any]], sender: str
    ) -> None:
        assert read_settings(EMAIL_FROM=sender)["EMAIL_FROM"] == sender

    @pytest.mark.parametrize("hosts", ["a.example,b.example", " a.example , b.example,"])
    def test_hosts_are_listed_with_commas(
        self, read_settings: Callable[..., dict[str, Any]], hosts: str
    ) -> None:
        assert read_settings(DJANGO_ALLOWED_HOSTS=hosts)["ALLOWED_HOSTS"] == [
            "a.example",
            "b.example",
        ]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("DJANGO_ENV", "prod"),
            ("DATABASE_URL", "nothing"),
            ("DATABASE_URL", "mysql://user:hidden-word@host/name"),
            ("DATABASE_URL", "postgres://user:hidden-word@host:port/name"),
            ("RABBITMQ_URL", "redis://:hidden-word@host/"),
            ("RABBITMQ_URL", "embedded://localhost.elsewhere"),
            ("EVENT_DELIVERY_LIMIT", "0"),
            ("EVENT_MAX_BYTES", "1k"),
            ("EVENT_PARTITIONS", "some"),
            ("EVENT_PARTITIONS", "4"),  # without a RABBITMQ_URL
            ("LOCK_ATTEMPTS", "0"),
            ("LOCK_BASE_SECONDS", "-1"),
            ("OUTAGE_MAX_SECONDS", "soon"),
            ("RETENTION_DAYS", "0"),
            ("RETENTION_DAYS", "1000000"),  # before the year 1
            ("REPLAY_WINDOW_DAYS", "x"),
            ("LEASE_SECONDS", "0"),
            ("RETRY_ATTEMPTS", "0"),
            ("RETRY_BASE_SECONDS", "-1"),
            ("SWEEP_SECONDS", "0"),
            ("PLAINTEXT_NETWORK", "yes"),
            ("CELERY_BROKER_READ_URL", "amqp://user:hidden-word@elsewhere/"),
            ("CELERY_BROKER_WRITE_URL", "amqp://user:hidden-word@elsewhere/"),
            ("PROXY_COUNT", "-1"),
            ("PROXY_COUNT", "10.0.0.1"),
            ("METRICS_ALLOWED", "prometheus"),
            ("METRICS_ALLOWED", "10.0.0.1/8"),
            ("METRICS_TOKEN", "hidden-word"),
            ("WORKER_METRICS_PORT", "65536"),
            ("WORKER_METRICS_PORT", "-1"),
            ("WORKER_METRICS_ADDRESS", "localhost"),
            ("WORKER_METRICS_ADDRESS", "127.0.0.1:9100"),
            ("WORKER_METRICS_ADDRESS", "10.0.0.0/8"),
            ("STRIPE_API_BASE", "ftp://127.0.0.1"),
            ("SMTP_HOST", "smtp://smtp.example.com"),
            ("SMTP_HOST", "smtp.example.com:25"),
            ("SMTP_HOST", "files:"),
            ("SMTP_HOST", "[::1"),
            ("SMTP_HOST", "a..example"),
            ("SMTP_HOST", "127.1"),
            ("SMTP_HOST", "ann:hidden-word@smtp.example.com"),
            ("SMTP_PORT", "0"),
            ("SMTP_PORT", "65536"),
            ("SMTP_SECURITY", "ssl"),
            ("SMTP_TIMEOUT_SECONDS", "0"),
            ("SMTP_HOST", "smtp://ann:hidden-word@smtp.example.com"),
            ("EMAIL_FROM", "noreply"),
            ("EMAIL_FROM", "noreply@example.com."),
            ("EMAIL_FROM", "été@example.com"),
            ("EMAIL_FROM", "=?utf-8?q?a?=@example.com"),
            ("EMAIL_FROM", "Tours: Paris <a@example.com>"),
            ("EMAIL_FROM", 'Tours "x <a@example.com>'),
            ("EMAIL_FROM", "a@example.com, b@example.com"),
            ("EMAIL_FROM", "A <a@example.com>\nBcc: b@example.com"),
            ("EMAIL_UNCERTAIN", "guess"),
            ("EMAIL_RETENTION_DAYS", "0"),
            ("LOG_LEVEL", "LOUD"),
            ("TIME_ZONE", "Nowhere/City"),
        ],
    )
    def test_a_wrong_value_is_refused_in_a_sentence(
        self, read_settings: Callable[..., dict[str, Any]], name: str, value: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(**{name: value})

        sentence = str(refused.value)
        assert sentence.startswith(name)
        assert sentence.endswith(".")
        assert "hidden-word" not in sentence

    @pytest.mark.parametrize(
        ("variables", "named"),
        [
            ({"SMTP_USER": "ann"}, "SMTP_PASS"),
            ({"SMTP_PASS": "hidden-word"}, "SMTP_USER"),
            ({"SMTP_USER": "ann", "SMTP_PASS": "hidden-wörd"}, "SMTP_USER and SMTP_PASS"),
            (
                {
                    "SMTP_HOST": "smtp.example.com",
                    "SMTP_SECURITY": "none",
                    "SMTP_USER": "ann",
                    "SMTP_PASS": "hidden-word",
                },
                "SMTP_SECURITY",
            ),
        ],
    )
    def test_a_password_is_never_half_set_nor_sent_in_the_clear(
        self, read_settings: Callable[..., dict[str, Any]], variables: dict[str, str], named: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(**variables)

        assert str(refused.value).startswith(named)
        assert "hidden-word" not in str(refused.value)

    def test_a_process_with_a_wrong_value_does_not_start(
        self, python: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        done = python("-c", "import django; django.setup()", EVENT_DELIVERY_LIMIT="none")

        assert done.returncode != 0
        assert "ImproperlyConfigured: EVENT_DELIVERY_LIMIT is 'none'" in done.stderr


class TestProduction:
    SECRETS = [name for name in PRODUCTION if name != "DJANGO_ENV"]

    def test_it_starts_with_all_that_it_needs(
        self, read_settings: Callable[..., dict[str, Any]]
    ) -> None:
        assert read_settings(**PRODUCTION)["PRODUCTION"] is True

    @pytest.mark.parametrize("name", SECRETS)
    def test_nothing_falls_back(
        self, python: Callable[..., subprocess.CompletedProcess[str]], name: str
    ) -> None:
        rest = {other: value for other, value in PRODUCTION.items() if other != name}

        done = python("-c", "import django; django.setup()", **rest)

        assert done.returncode != 0
        assert f"ImproperlyConfigured: {name} is not set, and nothing falls back" in done.stderr

    @pytest.mark.parametrize("name", SECRETS)
    def test_a_blank_is_nothing(
        self, read_settings: Callable[..., dict[str, Any]], name: str
    ) -> None:
        with pytest.raises(
            ImproperlyConfigured, match=f"^{name} is not set, and nothing falls back"
        ):
            read_settings(**PRODUCTION | {name: " "})

    def test_django_finds_nothing_unsafe(
        self, python: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        command = ["manage.py", "check", "--deploy", "--fail-level", "WARNING"]

        done = python(*command, **PRODUCTION, **STRIPE, **MAIL)

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "System check identified no issues (0 silenced).\n"

    @pytest.mark.parametrize(
        "key",
        ["x", "insecure-development-key", "x" * 60, "abcd" * 20, f"django-insecure-{'aBcDeF' * 9}"],
    )
    def test_a_key_that_can_be_guessed_is_refused(
        self, read_settings: Callable[..., dict[str, Any]], key: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(**PRODUCTION | {"DJANGO_SECRET_KEY": key})

        assert str(refused.value).startswith(
            "DJANGO_SECRET_KEY can be guessed: set it to 50 or more"
        )
        assert key not in str(refused.value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("STRIPE_SECRET_KEY", "sk_test_sandbox"), ("STRIPE_WEBHOOK_SECRET", "whsec_sandbox")],
    )
    def test_a_secret_of_development_is_refused(
        self, read_settings: Callable[..., dict[str, Any]], name: str, value: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured, match=rf"^{name} is the one of development"):
            read_settings(**PRODUCTION | {name: value})

    @pytest.mark.parametrize("name", STRIPE)
    def test_a_deployment_without_stripes_secrets_is_found(
        self, python: Callable[..., subprocess.CompletedProcess[str]], name: str
    ) -> None:
        done = python("manage.py", "check", "--deploy", **PRODUCTION, **STRIPE | {name: ""})

        assert done.returncode == 1
        assert f"(payments.E001) {name} is not set" in done.stderr

    @pytest.mark.parametrize("name", MAIL)
    def test_a_deployment_without_a_mail_server_or_a_sender_is_found(
        self, python: Callable[..., subprocess.CompletedProcess[str]], name: str
    ) -> None:
        done = python("manage.py", "check", "--deploy", **PRODUCTION, **STRIPE, **MAIL | {name: ""})

        assert done.returncode == 1
        assert f"(notifications.E001) {name} is not set" in done.stderr

    def test_the_cleanup_is_whole_in_every_process(
        self, python: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        whole = "from booking_platform.messaging.retention import CLEANUP"
        done = python("-c", f"import django; django.setup(); {whole}; print(*CLEANUP)")

        assert "forget_processed_events" in done.stdout
        assert "forget_recipients" in done.stdout

    def test_a_lease_that_is_shorter_than_a_mail_server_may_take_is_found(
        self, python: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        short = PRODUCTION | STRIPE | MAIL | {"LEASE_SECONDS": "120", "SMTP_TIMEOUT_SECONDS": "60"}
        done = python("manage.py", "check", "--deploy", "--fail-level", "WARNING", **short)

        assert done.returncode == 1
        assert "(notifications.W001) LEASE_SECONDS is 120, but" in done.stderr

    def test_stripe_itself_is_asked_in_production(
        self, read_settings: Callable[..., dict[str, Any]]
    ) -> None:
        settings = read_settings(**PRODUCTION, **STRIPE)

        assert settings["STRIPE_API_BASE"] == "https://api.stripe.com"
        assert read_settings(**PRODUCTION)["STRIPE_SECRET_KEY"] == ""


class TestTheRetention:
    @pytest.mark.parametrize(
        ("days", "window", "needed"), [("3", "7", 8), ("7", "7", 8), ("30", "30", 31)]
    )
    def test_it_outlives_the_longest_retry_and_the_replay_window(
        self,
        python: Callable[..., subprocess.CompletedProcess[str]],
        days: str,
        window: str,
        needed: int,
    ) -> None:
        limits = {"RETENTION_DAYS": days, "REPLAY_WINDOW_DAYS": window}

        done = python("manage.py", "check", **limits)

        assert done.returncode == 1
        assert (
            f"(messaging.E001) Processed events are kept for {days} days, "
            f"but a repeat can come for {needed}"
        ) in done.stderr
        assert "HINT: Raise RETENTION_DAYS or lower REPLAY_WINDOW_DAYS." in done.stderr

    def test_it_may_be_just_as_long(
        self, python: Callable[..., subprocess.CompletedProcess[str]]
    ) -> None:
        done = python("manage.py", "check", RETENTION_DAYS="8")

        assert done.returncode == 0, done.stderr


class TestSpans:
    @pytest.fixture(autouse=True)
    def _nothing_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            monkeypatch.delenv(name)

    @pytest.mark.parametrize(
        ("given", "asked"),
        [
            ({}, False),
            ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
            ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, True),
            ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
            ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
            ({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, False),
            ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, True),
            ({"OTEL_SERVICE_NAME": "tours"}, False),
            ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        ],
    )
    def test_they_are_made_where_they_are_asked_for(
        self, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], asked: bool
    ) -> None:
        for name, value in given.items():
            monkeypatch.setenv(name, value)

        assert env.spans() is asked

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_EXPORTER", "otlp,console"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ],
    )
    def test_what_the_platform_has_not_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv(name, value)

        with pytest.raises(ImproperlyConfigured, match=name):
            env.spans()
