"""Addresses of servers."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from ..errors import OmniAlphaError


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of an address: what the web takes for one and the same server. Raises ValueError."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def clean_url(url: str) -> str:
    """An address with a scheme and without a last slash. Raises OmniAlphaError where it is none."""
    whole = url if "://" in url else f"http://{url}"
    parts = urlsplit(whole)
    try:
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise OmniAlphaError(f"'{url}' is no address of a server; expected something like http://127.0.0.1:8188.")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))


def public_url(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
