"""A dump of the readings topic, replayed from the command line."""

from __future__ import annotations

from pathlib import Path

from engine import wire
from engine.catalog import Catalog
from engine.dump import DumpWriter
from engine.history import History
from engine.readings import tick_message
from tests.topologies.live import DAY
from topologies.cli import main


def test_a_replay_of_dumped_messages_gives_alerts_and_counts_what_it_rejects(
    tmp_path: Path, capsys: object
) -> None:
    compiled = tmp_path / "city.catalog"
    Catalog.build(DAY, compiled, partitions=2)
    catalog = Catalog.open(compiled)
    writers = [DumpWriter(tmp_path / "dump", p, catalog.digest) for p in range(2)]
    from engine import adapters

    offsets = [0, 0]

    def add(partition: int, message: bytes) -> None:
        writers[partition].add(offsets[partition], None, message)
        offsets[partition] += 1

    for chunk in History([DAY / "readings.parquet"], adapters.load(None), catalog).chunks():
        for partition, mine in wire.by_partition(chunk, catalog):
            for message in wire.messages(mine, catalog):
                add(partition, message)
        for partition in range(2):
            add(partition, tick_message(int(chunk.event_ms[len(chunk) // 2])))
    add(0, b"no message")
    for writer in writers:
        writer.close()
    log = tmp_path / "alerts.jsonl"
    arguments = ["replay", str(tmp_path / "dump"), "--catalog", str(compiled)]
    try:
        main([*arguments, "--rules", str(DAY / "rules.toml"), "-o", str(log)])
    except SystemExit as end:
        assert end.code == 0
    assert len(log.read_text().splitlines()) > 20
    assert "rejected: not_json 1" in capsys.readouterr().out  # type: ignore[attr-defined]
