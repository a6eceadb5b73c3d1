"""Security by default: what settings are refused, what is warned of, and the TLS that is spoken."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.errors import SettingsError
from engine.rules_base import Flaw

if TYPE_CHECKING:
    from topologies.settings import Settings

MIN_TOKEN_CHARACTERS = 16


def is_loopback(host: str) -> bool:
    """Return whether a host can only be this machine; a name other than localhost may be any."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _away(hosts: tuple[str, ...]) -> str | None:
    """Return the first of HOST:PORT that is off loopback."""
    return next(
        (each for each in hosts if not is_loopback(urlsplit(f"//{each}").hostname or "")), None
    )


def security_flaws(settings: Settings) -> Iterator[Flaw]:
    """Yield what would send secrets or the city's alarms in the clear, or open a door to anyone."""
    yield from _kafka(settings)
    yield from _redis(settings)
    yield from _http(settings)


def _kafka(settings: Settings) -> Iterator[Flaw]:
    security = settings.kafka_security
    sasl, tls = security.startswith("sasl"), security.endswith("ssl")
    away = _away(settings.kafka_brokers)
    about = (("kafka_brokers",), ("kafka_security",))
    key = ("kafka_security",)
    if away and security == "sasl_plaintext":
        problem = f"must be sasl_ssl for {away}: off loopback no password goes unencrypted"
        yield Flaw(key, problem, security, about)
    if away and security == "plaintext" and not settings.allow_plaintext:
        problem = f"must be ssl or sasl_ssl for {away}, off loopback, unless allow_plaintext = true"
        yield Flaw(key, problem, security, (*about, ("allow_plaintext",)))
    if sasl and settings.kafka_user is None:
        yield Flaw(("kafka_user",), f"is required where kafka_security is {security}")
    if sasl and not settings.has_secret("kafka_password"):
        problem = f"is required where kafka_security is {security}: it or kafka_password_file"
        yield Flaw(("kafka_password",), problem)
    if not sasl:
        for name in ("kafka_user", "kafka_password", "kafka_password_file"):
            if getattr(settings, name) is not None:
                problem = f"is of no use where kafka_security is {security}"
                yield Flaw((name,), problem, None, about)
    yield from _certificates(settings, "kafka", tls, f"where kafka_security is {security}")
    if settings.has_secret("kafka_key_password") and settings.kafka_key_file is None:
        yield Flaw(("kafka_key_file",), "is required besides kafka_key_password")


def _redis(settings: Settings) -> Iterator[Flaw]:
    url = settings.redis_parts()
    about = (("redis_url",), ("redis_mode",), ("redis_sentinels",))
    if settings.redis_mode == "sentinel":
        away = _away(settings.redis_sentinels)
        if not settings.redis_sentinels:
            yield Flaw(("redis_sentinels",), "is required where redis_mode is sentinel")
    else:
        away = None if url.scheme == "unix" or is_loopback(url.hostname or "") else url.hostname
        if settings.redis_sentinels:
            problem = f"is of no use where redis_mode is {settings.redis_mode}"
            yield Flaw(("redis_sentinels",), problem, None, (("redis_mode",),))
    if settings.redis_mode != "standalone" and url.scheme == "unix":
        problem = f"must be redis:// or rediss:// where redis_mode is {settings.redis_mode}"
        yield Flaw(("redis_url",), problem, None, (("redis_mode",),))
    if settings.redis_mode == "cluster" and url.path not in ("", "/", "/0"):
        yield Flaw(("redis_url",), "must name database 0 or none: a cluster has no other")
    if away and url.scheme != "rediss" and not settings.allow_plaintext:
        problem = f"must be rediss:// for {away}, off loopback, unless allow_plaintext = true"
        yield Flaw(("redis_url",), problem, None, (*about, ("allow_plaintext",)))
    if away and settings.redis_user is None:
        problem = f"is required for {away}, off loopback: an ACL user limited to the prefix"
        yield Flaw(("redis_user",), problem, None, about)
    if away and not settings.has_secret("redis_password"):
        problem = f"is required for {away}, off loopback: it or redis_password_file"
        yield Flaw(("redis_password",), problem, None, about)
    yield from _certificates(settings, "redis", url.scheme == "rediss", "without rediss://")


def _http(settings: Settings) -> Iterator[Flaw]:
    try:
        token = settings.secret("http_token")
    except SettingsError:
        token = None  # said of the file already
    if token is not None and len(token) < MIN_TOKEN_CHARACTERS:
        name = "http_token" if settings.http_token is not None else "http_token_file"
        yield Flaw((name,), f"must have at least {MIN_TOKEN_CHARACTERS} characters")
    for name, other in (("cert", "key"), ("key", "cert")):
        given, missing = f"http_{name}_file", f"http_{other}_file"
        if getattr(settings, given) is not None and getattr(settings, missing) is None:
            yield Flaw((missing,), f"is required besides {given}")
    if settings.http_port == 0 or is_loopback(settings.http_host):
        return
    about = (("http_host",), ("http_port",))
    if settings.http_cert_file is None:
        problem = f"is required for http_host {settings.http_host}, off loopback: TLS"
        yield Flaw(("http_cert_file",), problem, None, about)
    if not settings.has_secret("http_token"):
        problem = f"is required for http_host {settings.http_host}, off loopback"
        yield Flaw(("http_token",), problem, None, about)


def _certificates(settings: Settings, side: str, tls: bool, where: str) -> Iterator[Flaw]:
    given = [
        name
        for name in (f"{side}_ca_file", f"{side}_cert_file", f"{side}_key_file")
        if getattr(settings, name) is not None
    ]
    if not tls:
        for name in given:
            yield Flaw((name,), f"is of no use {where}", None, ((f"{side}_url",),))
        return
    for name, other in (("cert", "key"), ("key", "cert")):
        has, missing = f"{side}_{name}_file", f"{side}_{other}_file"
        if has in given and missing not in given:
            yield Flaw((missing,), f"is required besides {has}")


def warnings(settings: Settings) -> list[str]:
    """Return a line for each thing that works and should not stay as it is."""
    found = []
    for name in type(settings).model_fields:
        path = getattr(settings, name)
        holds_secret = name.endswith(("_key_file", "_password_file", "_token_file"))
        if holds_secret and path is not None and readable_by_others(path):
            found.append(f"{name}: {path} is readable by others: chmod 600 it")
    if settings.allow_plaintext:
        away = _away(settings.kafka_brokers)
        if away and settings.kafka_security == "plaintext":
            found.append(f"allow_plaintext: readings and alerts go to {away} unencrypted")
        url = settings.redis_parts()
        if url.scheme == "redis" and not is_loopback(url.hostname or ""):
            found.append(f"allow_plaintext: alerts and a password go to {url.hostname} unencrypted")
    return found


def readable_by_others(path: Path) -> bool:
    """Return whether a file's mode lets users outside its group read it."""
    try:
        return bool(path.stat().st_mode & 0o004)
    except OSError:
        return False


def client_tls(
    ca_file: Path | None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    key_password: str | None = None,
) -> ssl.SSLContext:
    """Return TLS ≥ 1.2 that checks the server's certificate and name, and shows ours if given."""
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        # an empty password rather than none: OpenSSL would ask for it on the terminal
        context.load_cert_chain(cert_file, key_file, password=key_password or "")
    return context


def server_tls(cert_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """Return TLS ≥ 1.2 of a server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert_file, key_file, password="")
    return context
