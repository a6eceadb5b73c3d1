"""`tocsin health`: ask a worker on this machine what it says of itself."""

from __future__ import annotations

import ssl
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from engine.errors import TocsinError
from topologies.settings import Settings

TIMEOUT_S = 5.0
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
NOT_READY = 4


def run(settings: Settings, path: str) -> int:
    """Print what a worker answers; return 0 if it is well, 4 if not. TocsinError if none answers.

    Over TLS the certificate must be the worker's own, but the name in it need not be this address.
    """
    if settings.http_port == 0:
        raise TocsinError("http_port is 0: a worker with these settings has no HTTP server")
    host = ANYWHERE.get(settings.http_host, settings.http_host)
    host = f"[{host}]" if ":" in host else host
    scheme = "http" if settings.http_cert_file is None else "https"
    url = f"{scheme}://{host}:{settings.http_port}{path}"
    token = settings.secret("http_token")
    request = Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    # no proxy: it would be told the token
    opener = build_opener(ProxyHandler({}), *_tls(settings))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            print(answer.read(1 << 20).decode())
            return 0
    except HTTPError as error:
        text = error.read(1 << 20).decode(errors="replace").strip()
        if error.code != 503:
            raise TocsinError(f"{url}: {error.code} {text}") from error
        print(text)
        return NOT_READY
    except (URLError, OSError, HTTPException) as error:
        why = getattr(error, "reason", None) or error
        raise TocsinError(f"{url}: {why}") from error


def _tls(settings: Settings) -> list[HTTPSHandler]:
    if settings.http_cert_file is None:
        return []
    context = ssl.create_default_context(cafile=str(settings.http_cert_file))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the leaf itself is what we trust
    context.check_hostname = False
    return [HTTPSHandler(context=context)]
