"""The servers that the environment names: their URLs, checked before anything is sent there.

A URL with a password is in no setting, since ``celery report`` and error pages print those. What needs
one calls the function that reads it.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from booking_platform import confidential
from booking_platform import environment as env

# Files under VAR_DIR: booking_platform.development.embedded_broker.
EMBEDDED_BROKER = "embedded://localhost"

LONGEST_HOST = 253  # characters (RFC 1035, 2.3.4)
# Celery's own variables for connections that only read or only write: nothing would have checked them.
PAST_US = ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
ENCRYPTED = ("require", "verify-ca", "verify-full")  # modes of libpq that never fall back

# What no URL of ours holds: parsers disagree about it, so that what was checked is not what is called.
_STRANGE = re.compile(r"[^\x21-\x7e]|[\\\"<>^`{|}]")
_HOST = re.compile(r"(?!\.)(?:\.?[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)+\.?")
_NUMBERS = re.compile(r"(?:0[xX][0-9a-fA-F]+|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]+|[0-9]+))*\.?")


class _Wrong(ValueError):
    """A URL that is refused; the message says why, and repeats nothing of it."""


def is_host(name: str) -> bool:
    """Return whether a text is a host name or an IP address, without port, brackets or anything else.

    Numbers that are no whole address are none: ``127.1`` is this machine to some and a name to others.
    """
    if _address(name):
        return True
    fits = len(name) <= LONGEST_HOST and bool(_HOST.fullmatch(name))
    return fits and not _NUMBERS.fullmatch(name)


def is_local(host: str) -> bool:
    """Return whether a host is this machine for sure, so that nothing crosses a network."""
    address = _address(host)
    return address.is_loopback if address else host.casefold() == "localhost"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def plaintext_is_meant() -> bool:
    """Return whether connections without TLS to other machines are meant: the network is private."""
    return env.choice("PLAINTEXT_NETWORK", ("0", "1"), "0") == "1"


def broker_url() -> str:
    """Return the URL of the message broker, or several with semicolons between.

    Raises:
        ImproperlyConfigured: there is none in production, it can't be read, or passwords and events
            would cross a network in the clear.
    """
    production = env.production()
    for name in PAST_US:
        if env.text(name):
            raise ImproperlyConfigured(
                f"{name} is set, but the broker is named by RABBITMQ_URL alone: set that instead."
            )
    value = (
        env.required("RABBITMQ_URL", "set it to amqps://user:password@host:5671/vhost")
        if production
        else env.text("RABBITMQ_URL", EMBEDDED_BROKER)
    )
    if value == EMBEDDED_BROKER and not production:
        return value
    confidential.remember_url(value)
    urls = [url.strip() for url in value.split(";")]
    for url in urls:
        _check_broker(url)
    return ";".join(urls)


def _check_broker(url: str) -> None:
    """Check that one broker's URL can be read in one way, and is under TLS where it has to be."""
    try:
        parts = _split(url, ("amqp", "amqps"))
        if parts.query or parts.fragment:
            raise _Wrong("it has a query or a fragment")
    except _Wrong as problem:
        raise ImproperlyConfigured(
            f"RABBITMQ_URL can't be used ({problem}): it must begin with amqp:// or amqps://, as in "
            "amqps://user:password@host:5671/vhost; several have semicolons between."
        ) from None
    host = parts.hostname or "localhost"
    if env.production() and parts.scheme == "amqp" and not _may_be_plain(host):
        raise ImproperlyConfigured(
            f"RABBITMQ_URL names {host} by amqp://: passwords and events would cross the network in "
            "the clear. Set it to amqps://, or PLAINTEXT_NETWORK=1 if the network is private."
        )


def check_database(database: Mapping[str, Any]) -> None:
    """Check that in production a PostgreSQL on another machine is spoken to under TLS.

    Raises:
        ImproperlyConfigured: it might not be, and PLAINTEXT_NETWORK does not say that this is meant.
    """
    if not (env.production() and database["ENGINE"].endswith("postgresql")):
        return
    options = database.get("OPTIONS", {})
    mode = options.get("sslmode") or env.text("PGSSLMODE")
    hosts = _hosts_of(database)
    if mode in ENCRYPTED or all(map(_may_be_plain, hosts)):
        return
    raise ImproperlyConfigured(
        f"DATABASE_URL names {' and '.join(hosts)} without TLS: passwords and customers would cross the "
        "network in the clear. Add ?sslmode=verify-full (or require) to it, or set PLAINTEXT_NETWORK=1 "
        "if the network is private."
    )


def _hosts_of(database: Mapping[str, Any]) -> list[str]:
    """Return where libpq connects to, as its own environment variables have it in the end."""
    options = database.get("OPTIONS", {})
    if options.get("service") or env.text("PGSERVICE"):
        return ["the host of a service"]
    named = [
        unquote(str(database.get("HOST") or options.get("host") or env.text("PGHOST"))),
        str(options.get("hostaddr") or env.text("PGHOSTADDR")),
    ]
    return [host.strip() for names in named if names for host in names.split(",")]


def _may_be_plain(host: str) -> bool:
    in_files = host.startswith(("/", "@")) or not host  # a Unix socket, by libpq's rules
    return in_files or is_local(host) or plaintext_is_meant()


def stripe_base(default: str) -> str:
    """Return where Stripe's API is, without a slash at the end.

    Raises:
        ImproperlyConfigured: the secret key would be sent there in the clear, or to whoever a second
            reading of the URL takes for its host.
    """
    value = env.text("STRIPE_API_BASE", default)
    try:
        parts = _split(value, ("https", "http"))
        if "@" in parts.netloc or parts.query or parts.fragment or not parts.hostname:
            raise _Wrong("it is more than scheme, host, port and path")
        if "%" in value:
            raise _Wrong("something in it is percent-encoded")
        if parts.scheme == "http" and not is_local(parts.hostname):
            raise _Wrong("it is another machine, without TLS")
    except _Wrong as problem:
        confidential.remember_url(value)
        shown = "not a plain URL" if "@" in value else repr(value)
        raise ImproperlyConfigured(
            f"STRIPE_API_BASE is {shown} ({problem}): it must begin with https://, or name this machine "
            "(http://127.0.0.1:12111), since the secret key is sent there."
        ) from None
    return value.rstrip("/")


def smtp_host(default: str) -> str:
    """Return the name or address of the mail server."""
    value = env.text("SMTP_HOST")
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if value and not is_host(bare):
        shown = "no host name" if "@" in value else repr(value)  # it may hold a password
        raise ImproperlyConfigured(
            f"SMTP_HOST is {shown}: set it to a host name alone, such as smtp.example.com; the port "
            "is SMTP_PORT."
        )
    return bare or default


def smtp_name() -> str:
    """Return the name that the mail server is to be told, or nothing: this machine's own then."""
    value = env.text("SMTP_EHLO")
    literal = re.fullmatch(r"\[(IPv6:)?([0-9A-Fa-f.:]+)\]", value)
    address = _address(literal[2]) if literal else None
    named = address is not None and literal is not None
    if named and isinstance(address, ipaddress.IPv6Address) != bool(literal and literal[1]):
        named = False
    if value and not named and (not is_host(value) or _address(value)):
        raise ImproperlyConfigured(
            f"SMTP_EHLO is {value!r}: set it to this machine's name, such as web.example.com, or to its "
            "address in brackets: [192.0.2.1] or [IPv6:2001:db8::1]."
        )
    return value


def networks(name: str, default: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return a list of networks or addresses, written with commas between."""
    try:
        listed = env.text(name, default).split(",")
        return [ipaddress.ip_network(each.strip()) for each in listed if each.strip()]
    except ValueError as error:
        raise ImproperlyConfigured(
            f"{name} can't be read ({error}): set it to networks or addresses such as 10.0.0.0/8 or "
            "2001:db8::1, with commas between."
        ) from None


def address(name: str, default: str) -> str:
    """Return an address of this machine to listen at; 0.0.0.0 and :: are all of them.

    Raises:
        ImproperlyConfigured: it is not one of IPv4 or IPv6.
    """
    value = env.text(name, default)
    if _address(value) is None:
        raise ImproperlyConfigured(
            f"{name} is {value!r}: set it to an address of this machine, such as 127.0.0.1, or to 0.0.0.0 for "
            "all of them."
        )
    return value


def allowed_hosts(default: str) -> list[str]:
    """Return the host names under which the admin may be asked for.

    Raises:
        ImproperlyConfigured: there is none in production, or one of them can never match.
    """
    production = env.production()
    if production:
        env.required(
            "DJANGO_ALLOWED_HOSTS", "set it to the admin's host names, with commas between"
        )
    hosts = [host.strip() for host in env.text("DJANGO_ALLOWED_HOSTS", default).split(",")]
    for host in filter(None, hosts):
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host.removeprefix(".")
        if host == "*" and not production:
            continue
        if not is_host(bare) or (":" in bare and bare == host):
            raise ImproperlyConfigured(
                f"DJANGO_ALLOWED_HOSTS names {host!r}: set it to host names alone, such as "
                "bookings.example.com, .example.com or [::1], with commas between."
            )
    return [host for host in hosts if host]


def origins(name: str) -> list[str]:
    """Return the origins whose web pages may ask, or ``*`` alone for all of them.

    Raises:
        ImproperlyConfigured: one of them is not what a browser sends as its origin (RFC 6454, 7), so that
            it would never match.
    """
    listed = [each.strip() for each in env.text(name).split(",") if each.strip()]
    if listed == ["*"]:
        return listed
    for origin in listed:
        try:
            parts = _split(origin, ("https", "http"))
            default = {"https": 443, "http": 80}[parts.scheme]
            plain = f"{parts.scheme}://{parts.netloc}".lower()
            if "@" in parts.netloc or not parts.hostname or origin != plain:
                raise _Wrong("it is more than scheme, host and port, or not in small letters")
            if parts.port == default:
                raise _Wrong("browsers leave out the port that the scheme has anyway")
        except _Wrong as problem:
            shown = "no origin" if "@" in origin else repr(origin)  # it may hold a password
            raise ImproperlyConfigured(
                f"{name} names {shown} ({problem}): set it to origins such as "
                "https://shop.example.com, with commas between, or to * for all."
            ) from None
    return listed


def _split(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of a URL whose host and port can be read in one way only."""
    if _STRANGE.search(url):
        raise _Wrong("it holds a space, a backslash or another character that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _Wrong("its host or port can't be read") from None
    if parts.scheme not in schemes or not url.lower().startswith(f"{parts.scheme}://"):
        raise _Wrong(f"it does not begin with {' or '.join(f'{each}://' for each in schemes)}")
    if parts.netloc.count("@") > 1:
        raise _Wrong("an @ in its password must be written as %40")
    host = parts.netloc.rpartition("@")[2]
    bare = re.sub(r":[0-9]*\Z", "", host) if port is not None else host
    bare = bare[1:-1] if bare.startswith("[") and bare.endswith("]") else bare
    if (bare and not is_host(bare)) or port == 0 or host.endswith(":"):
        raise _Wrong("its host or port can't be read")
    return parts
