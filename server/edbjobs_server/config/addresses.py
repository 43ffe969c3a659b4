"""Addresses, host names and URLs of the settings."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit


def address(value: str) -> str:
    """Write an address in one form; empty and ``none``: no address."""
    if value.strip().lower() in ("", "none"):
        return ""
    host, port = split_address(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """Split ``host:port``.

    Parameters
    ----------
    text : str
        ``127.0.0.1:18080``, ``[::1]:0`` or ``localhost:0``, which is 127.0.0.1. Other names are not looked
        up: whether an address is a loopback address decides who gets in, so it must be written out.

    Returns
    -------
    tuple of (str, int)
        Address and port.

    Raises
    ------
    ValueError
        It is not of that form.
    """
    host, colon, port = text.strip().rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    if not colon or address is None or (address.version == 6) != (bare is not host):
        raise ValueError("expected IP-ADDRESS:PORT, for example 127.0.0.1:18080, [::1]:18080 or localhost:0")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("the port must be 0 to 65535; 0 takes any free one")
    return str(address), int(port)


def host_name(value: str) -> str:
    """Check a host name."""
    name = value.strip().lower()
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,252})", name):
        raise ValueError("expected a host name without a port, for example jobs.example.com")
    return name


def origin(value: str) -> str:
    """Check the origin of a page."""
    parts = urlsplit(value.strip().rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.path:
        raise ValueError("expected http(s)://HOST[:PORT], as a browser writes it, for example http://localhost:5173")
    return f"{parts.scheme}://{parts.netloc}".lower()


def network(value: str) -> str:
    """Check an IP address or network."""
    try:
        return str(ipaddress.ip_network(value.strip(), strict=False))
    except ValueError:
        raise ValueError("expected an IP address or network, for example 127.0.0.1 or 10.0.0.0/8") from None


def public_url(value: str) -> str:
    """Check the URL of a proxy in front."""
    if not value:
        return ""
    parts = urlsplit(value.strip().rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.path:
        raise ValueError("expected http(s)://HOST[:PORT]; the gateway answers at the root of its host")
    return f"{parts.scheme}://{parts.netloc}".lower()
