"""What the router has written, in a form in which two runs can be compared.

Where several partitions write at once, the entries of a stream lie in the order in which they came
to Redis, and ids follow that order: there each partition's entries are compared, without ids.
"""

from __future__ import annotations

from typing import Any

import redis

Keys = dict[str, Any]


def keys_of(url: str, prefix: str = "tocsin:", *, ids: bool = False, **client: Any) -> Keys:
    """Return every key that begins with the prefix, and what it holds."""
    with redis.Redis.from_url(url, **client) as connection:
        return read(connection, prefix, ids=ids)


def read(connection: Any, prefix: str, *, ids: bool = False) -> Keys:
    found: Keys = {}
    for key in sorted(connection.scan_iter(match=f"{prefix}*", count=10_000)):
        kind = connection.type(key).decode()
        name = key.decode()
        if kind == "hash":
            found[name] = connection.hgetall(key)
        elif kind == "zset":
            found[name] = connection.zrange(key, 0, -1, withscores=True)
        elif kind == "stream":
            entries = connection.xrange(key)
            found[name] = entries if ids else by_partition(entries)
        else:
            found[name] = (kind, connection.dump(key))
    return found


def by_partition(entries: list[Any]) -> dict[bytes, list[Any]]:
    """Return the entries of each partition in their order, without ids."""
    found: dict[bytes, list[Any]] = {}
    for _, entry in entries:
        found.setdefault(entry[b"at"].split(b"/")[0], []).append(entry)
    return found
