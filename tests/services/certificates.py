"""Certificates for the servers and clients of one test run, made by an authority of its own."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class Certificates:
    """PEM files in `folder`: `ca`, and for `server`, `client` and `stranger` key and chain in one.

    The server's is for 127.0.0.1 and localhost; the stranger's is signed by another authority.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        authority, other = trustme.CA(), trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.other_ca = folder / "other-ca.pem"
        other.cert_pem.write_to_path(str(self.other_ca))
        self.server = _write(
            folder / "server.pem",
            authority.issue_cert("127.0.0.1", "localhost", common_name="broker"),
        )
        self.client = _write(
            folder / "client.pem", authority.issue_cert("worker.test", common_name="worker")
        )
        self.stranger = _write(
            folder / "stranger.pem", other.issue_cert("stranger.test", common_name="stranger")
        )

    def context(self, *, client: Path | None = None, ca: Path | None = None) -> ssl.SSLContext:
        """Return a client's context that checks the server, and shows `client` if given."""
        context = ssl.create_default_context(cafile=ca or self.ca)
        if client is not None:
            context.load_cert_chain(client)
        return context


def _write(path: Path, cert: trustme.LeafCert) -> Path:
    # PKCS#8, the only form of a key that Java reads
    key = load_pem_private_key(cert.private_key_pem.bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
    path.touch(mode=0o600)
    path.write_bytes(pem + chain)
    return path
