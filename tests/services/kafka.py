"""Apache Kafka as it is deployed: one KRaft node on Java 17, from jars of Maven Central.

`python -m tests.services.kafka` fetches the jars (43 MB) into the cache and prints where they are;
a test that needs them does the same. The broker forgets nothing over `kill` and `start`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tests.services.certificates import Certificates
from topologies.embedded import LOOPBACK, Server, ServiceError, answers_kafka, free_port

POM = Path(__file__).with_name("kafka-pom.xml")
USER, PASSWORD = "tocsin", "correct-horse-battery"
Security = Literal["PLAINTEXT", "SASL_SSL", "SSL"]

# the compiler's first stage alone: half the CPU of a start, and enough for tests
QUICK = ("-XX:TieredStopAtLevel=1", "-Xmx512m", "-Xms64m")
# for measurements
FAST = ("-Xmx1g", "-Xms1g")


class Unavailable(Exception):
    """A server can't be had on this machine; the message says what is missing."""


class Kafka(Server):
    """One broker, reached at `bootstrap` with the keyword arguments `client()`.

    PLAINTEXT  no authentication
    SASL_SSL   SCRAM-SHA-512 or PLAIN over TLS, for USER with PASSWORD
    SSL        TLS with a client's certificate required
    """

    name = "Apache Kafka"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        security: Security = "PLAINTEXT",
        certificates: Certificates | None = None,
        settings: dict[str, Any] | None = None,
        java: tuple[str, ...] = QUICK,
    ) -> None:
        self._java = [java_program(), *java, "-XX:+UseSerialGC", "-cp", f"{jars()}/*"]
        super().__init__(folder)
        self.security = security
        self.controller_port = free_port()
        # the broker talks to itself in the clear, whatever its clients have to do
        self.internal_port = self.port if security == "PLAINTEXT" else free_port()
        if security != "PLAINTEXT" and certificates is None:
            certificates = Certificates(self.folder / "certificates")
        self.certificates = certificates
        self._properties = self.folder / "server.properties"
        lines = {**self._common(), **self._secured(), **(settings or {})}
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))

    @property
    def bootstrap(self) -> str:
        return self.address

    def client(
        self,
        *,
        mechanism: str = "SCRAM-SHA-512",
        password: str = PASSWORD,
        certificate: Path | None = None,
    ) -> dict[str, Any]:
        """Return what aiokafka's clients need to be let in."""
        settings: dict[str, Any] = {"bootstrap_servers": self.bootstrap}
        if self.certificates is None or self.security == "PLAINTEXT":
            return settings
        settings["security_protocol"] = self.security
        if self.security == "SSL":
            certificate = certificate or self.certificates.client
            return settings | {"ssl_context": self.certificates.context(client=certificate)}
        return settings | {
            "ssl_context": self.certificates.context(),
            "sasl_mechanism": mechanism,
            "sasl_plain_username": USER,
            "sasl_plain_password": password,
        }

    def command(self) -> list[str]:
        logs = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [self._java[0], logs, *self._java[1:], "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        return answers_kafka(self.internal_port)

    def start(self, timeout_s: float = 60.0, stopped: Callable[[], bool] = lambda: False) -> None:
        if not (self.folder / "data").exists():
            self._format()
        super().start(timeout_s, stopped)

    def _format(self) -> None:
        options = ["-t", "tocsin-tests-0000000000", "-c", str(self._properties)]
        if self.security == "SASL_SSL":
            options += ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]
        done = subprocess.run(
            [*self._java, "kafka.tools.StorageTool", "format", *options],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServiceError(f"Kafka's storage can't be formatted: {done.stderr[-500:]}")

    def _common(self) -> dict[str, Any]:
        listeners = [f"CLIENT://{self.address}", f"CONTROLLER://{LOOPBACK}:{self.controller_port}"]
        internal = "CLIENT"
        if self.internal_port != self.port:
            listeners.append(f"INTERNAL://{LOOPBACK}:{self.internal_port}")
            internal = "INTERNAL"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "listeners": ",".join(listeners),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": internal,
            "listener.security.protocol.map": (
                f"CLIENT:{self.security},CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT"
            ),
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            # one broker, quick rebalances, quick return after a SIGKILL
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 2,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 2,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 500,
            # small: the cleaner alone would take 128 MB
            "log.cleaner.dedupe.buffer.size": 4 << 20,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }

    def _secured(self) -> dict[str, Any]:
        if self.certificates is None or self.security == "PLAINTEXT":
            return {}
        tls = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.certificates.server,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificates.ca,
            "ssl.client.auth": "required" if self.security == "SSL" else "none",
        }
        if self.security == "SSL":
            return tls
        module = "org.apache.kafka.common.security"
        return tls | {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.client.scram-sha-512.sasl.jaas.config": (
                f"{module}.scram.ScramLoginModule required;"
            ),
            "listener.name.client.plain.sasl.jaas.config": (
                f'{module}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            ),
        }


def java_program() -> str:
    """Return the path of a Java of version 17 or later."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if java is None:
        raise Unavailable("Kafka needs Java 17 or later, and there is no java")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < 17:
        raise Unavailable(f"Kafka needs Java 17 or later, {java} is {told.splitlines()[:1]}")
    return java


def jars() -> Path:
    """Return the folder of Kafka's jars, fetched by Maven when they are not in the cache yet.

    TOCSIN_TEST_KAFKA_JARS names a folder of one's own. Processes that ask at once fetch them once.
    """
    given = os.environ.get("TOCSIN_TEST_KAFKA_JARS")
    if given:
        if not any(Path(given).glob("kafka_2*.jar")):
            raise Unavailable(f"TOCSIN_TEST_KAFKA_JARS={given} holds no jars of Kafka")
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tocsin"
    folder = cache / f"kafka-{_version()}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"Kafka's jars are not in {folder}, and there is no mvn to fetch them")
    with tempfile.TemporaryDirectory(dir=folder.parent) as partly:
        done = subprocess.run(
            [
                *(maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"),
                *(f"-DoutputDirectory={partly}/jars", "-DincludeScope=runtime"),
            ],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"mvn can't fetch Kafka's jars: {done.stdout.strip()[-500:]}")
        Path(partly, "jars").rename(folder)


def _version() -> str:
    version = ET.parse(POM).findtext(".//{*}kafka.version")
    assert version, POM
    return version


if __name__ == "__main__":
    try:
        print(f"Kafka's jars: {jars()}")
    except Unavailable as error:
        sys.exit(str(error))
