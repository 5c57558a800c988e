"""Who is asking: the address of a client, behind as many proxies as the setting says."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What proxies add to a request. Where a client has written it itself, it loses by that.
FORWARDED = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_VIA",
)


def address(request: HttpRequest) -> str | None:
    """Return the address that failed logins are counted by; None where there is none."""
    found = _forwarded(request) or _read(request.META.get("REMOTE_ADDR", ""))
    return str(found) if found else None


def known_address(request: HttpRequest) -> Address | None:
    """Return the address at the other end of the connection, if that is the client: rights may rest on it.

    What has come through a proxy, or says so, has none: anybody can write such a header.
    """
    if any(request.META.get(name) for name in FORWARDED):
        return None
    return _read(request.META.get("REMOTE_ADDR", ""))


def _forwarded(request: HttpRequest) -> Address | None:
    """Return the address that the outermost of our proxies has heard from.

    Each proxy appends that to ``X-Forwarded-For``. What stands before the entries of our own proxies a
    client may have written itself: only the last ``PROXY_COUNT`` are believed.
    """
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    count = settings.PROXY_COUNT
    return _read(hops[-count].strip()) if 0 < count <= len(hops) else None


def _read(text: str) -> Address | None:
    """Return an address; one of IPv4 that is written as IPv6 is that of IPv4."""
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:  # some proxies add the port
        bare = bare.partition(":")[0]
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
