"""Who is asking: the address of a client, behind as many proxies as the setting says."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What proxies add to a request. Without a word about proxies it was none of ours, or a client's lie.
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA")


def address(request: HttpRequest) -> str | None:
    """Return the address that failed logins are counted by; None where there is none.

    Each proxy appends whom it has heard from to ``X-Forwarded-For``. What stands before the entries of
    our own proxies a client may have written itself: only the last ``PROXY_COUNT`` are believed.
    """
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    count = settings.PROXY_COUNT
    named = hops[-count] if 0 < count <= len(hops) else ""
    found = _read(named) or _read(request.META.get("REMOTE_ADDR", ""))
    return str(found) if found else None


def known_address(request: HttpRequest) -> Address | None:
    """Return the address of a client, if it is known for sure: rights may rest on it.

    Behind a proxy that no setting speaks of, every client would have that proxy's address.
    """
    if not settings.PROXY_COUNT and any(request.META.get(name) for name in FORWARDED):
        return None
    return _read(address(request) or "")


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
