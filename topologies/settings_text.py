"""Settings for people: the documented table, what a worker runs with, the line at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from engine import __version__
from topologies.logs import MASK
from topologies.settings import SECRETS, Settings, variable

BEGIN = "<!-- settings: written by `python -m topologies.settings_text`, checked by a test -->"
END = "<!-- end of settings -->"
README = Path(__file__).with_name("README.md")


def section(field: FieldInfo) -> str:
    """Return the heading that a setting stands under."""
    extra = field.json_schema_extra
    return str(extra["section"]) if isinstance(extra, dict) else ""


def is_switch(field: FieldInfo) -> bool:
    """Return whether a setting is a yes or no."""
    return field.annotation is bool


def has_flag(name: str) -> bool:
    """Return whether a setting may be given on the command line, where others could read it."""
    return name not in SECRETS


def written(value: Any) -> str:
    """Return a value as a file, a variable or a flag would write it; secrets masked."""
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _bounds(field: FieldInfo) -> str:
    """Return the bounds of a number: `1 to 9`."""
    if field.annotation not in (int, float):
        return ""
    found = {
        name: getattr(each, name)
        for each in field.metadata
        for name in ("ge", "le")
        if hasattr(each, name)
    }
    return f"{_number(found['ge'])} to {_number(found['le'])}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.15g}"


def table() -> str:
    """Return every setting as one Markdown table, from the model's own descriptions."""
    lines = [
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    heading = ""
    for name, field in Settings.model_fields.items():
        if section(field) != heading:
            heading = section(field)
            lines.append(f"| **{heading}** | | | |")
        default = written(field.default)
        meaning = field.description or ""
        bounds = _bounds(field)
        if bounds:
            meaning = f"{meaning[:-1]} ({bounds})."
        shown = f"`{default}`" if default else ""
        lines.append(f"| `{name}` | `{variable(name)}` | {shown} | {meaning} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return the README with the table of settings between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the words that a setting may be, none if it is free."""
    return tuple(each for each in get_args(field.annotation) if isinstance(each, str))


def shown(settings: Settings) -> dict[str, str]:
    """Return every setting as text, secrets masked: what `worker --show-settings` prints."""
    return {name: written(getattr(settings, name)) for name in Settings.model_fields}


def secrets_of(settings: Settings) -> list[str | None]:
    """Return every secret that the settings hold, for the mask of the logs."""
    return [settings.secret(name) for name in SECRETS]


def redis_place(settings: Settings) -> str:
    """Return where Redis is, and as whom, without a password."""
    user = f" as {settings.redis_user}" if settings.redis_user else ""
    url = settings.redis_parts()
    if settings.redis_mode == "sentinel":
        tls = ", TLS" if url.scheme == "rediss" else ""
        places = ",".join(settings.redis_sentinels)
        return f"sentinel {settings.redis_sentinel_name} at {places}{tls}{user}"
    mode = " (cluster)" if settings.redis_mode == "cluster" else ""
    return f"{settings.redis_url}{mode}{user}"


def kafka_place(settings: Settings) -> str:
    """Return where Kafka is, and as whom, without a password."""
    sasl = settings.kafka_security.startswith("sasl")
    user = f" as {settings.kafka_user} ({settings.kafka_sasl_mechanism})" if sasl else ""
    return f"{','.join(settings.kafka_brokers)} ({settings.kafka_security}){user}"


def startup_line(settings: Settings, catalog: Any, plan: Any, *, embedded: bool = False) -> str:
    """Return one line that says what a worker runs and what it is connected to; no secrets.

    `catalog` and `plan` are the engine's. `embedded` says that broker and Redis live in memory.
    """
    http = "off"
    if settings.http_port:
        scheme = "https" if settings.http_cert_file else "http"
        host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
        token = ", token" if settings.has_secret("http_token") else ""
        http = f"{scheme}://{host}:{settings.http_port}{token}"
    parts = [
        f"tocsin {__version__} worker of group {settings.group}",
        f"catalog {settings.catalog} ({catalog.digest[:12]}: {catalog.n_sources:,} sources, "
        f"{catalog.n_sensors:,} sensors, {catalog.n_partitions} partitions)",
        f"rules {plan.rules.name} ({plan.rules.digest[:12]})",
        *([f"shadow {settings.shadow}"] if settings.shadow else []),
        *([f"feeds {settings.feeds}"] if settings.feeds else []),
        f"kafka {kafka_place(settings)}, topics {settings.topic_prefix}*",
        f"redis {redis_place(settings) if settings.router else 'not ours: router off'}",
        f"snapshots {settings.snapshots} every {settings.snapshot_every_s:g} s",
        f"http {http}",
        *(["broker and Redis embedded, in memory only: nothing outlives this run"] * embedded),
    ]
    return "; ".join(parts)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
