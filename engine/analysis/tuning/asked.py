"""What a study was asked: all that its figures rest on, so that only the same goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson

from engine import __version__
from engine.analysis.past import Past
from engine.analysis.tuning.space import Space
from engine.files import discover
from engine.rules import Rules


def what_is_asked(
    past: Past, rules: Rules, space: Space, search: dict[str, Any], measured: dict[str, Any]
) -> dict[str, Any]:
    """Return the digests and options that decide every figure, as plain JSON values.

    How many settings are wanted is not among them: a study may go on to more.
    """
    files = discover(past.readings)
    return {
        "tocsin": __version__,
        "catalog": past.catalog.digest,
        "rules": rules.digest,
        "space": digest_of(space.meaning()),
        "readings": {_name(path.path, path.keys): path.n_bytes for path in files},
        "adapter": digest_of(past.adapter.model_dump(mode="json")),
        "span": [past.span.since_ms, past.span.until_ms],
        "sort": past.sort,
        "search": search,
        "measured": measured,
    }


def _name(path: Path, keys: dict[str, str]) -> str:
    return "/".join([*(f"{key}={value}" for key, value in keys.items()), path.name])


def digest_of(value: Any) -> str:
    """Return BLAKE2b-128, in hex, of plain JSON values."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()
