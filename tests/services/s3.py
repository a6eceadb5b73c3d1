"""An object store as workers meet it: moto's server speaks S3 and keeps everything in memory."""

from __future__ import annotations

import importlib.util
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

from pyarrow import fs

from tests.services.kafka import Unavailable
from topologies.embedded import LOOPBACK, Server

BUCKET = "snapshots-of-tests"
KEYS = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "no-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class ObjectStore(Server):
    """One S3 server with one bucket; a kill forgets everything."""

    name = "moto"

    def __init__(self, folder: Path | None = None) -> None:
        for module in ("moto", "flask_cors"):
            if importlib.util.find_spec(module) is None:
                raise Unavailable(f"{module} is not installed: pip install 'tocsin[test]'")
        super().__init__(folder)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(self.port)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, **KEYS}

    def answers(self) -> bool:
        with urllib.request.urlopen(f"http://{self.address}/moto-api/", timeout=5) as answer:
            return bool(answer.status == 200)

    def start(self, timeout_s: float = 30.0, **more: Any) -> None:
        super().start(timeout_s, **more)
        self.files.create_dir(BUCKET)

    @property
    def uri(self) -> str:
        """A folder of the bucket, as a setting names it."""
        return f"s3://{BUCKET}/city?scheme=http&endpoint_override={self.address}"

    @property
    def files(self) -> fs.S3FileSystem:
        """The store as a test looks into it."""
        return fs.S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=self.address,
            scheme="http",
            allow_bucket_creation=True,
        )

    def names(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder of the bucket."""
        selector = fs.FileSelector(f"{BUCKET}/{folder}", recursive=True, allow_not_found=True)
        found = self.files.get_file_info(selector)
        return sorted(entry.path for entry in found if entry.is_file)
