"""A dump of the readings topic, replayed from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from engine import dump as dumps
from engine import wire
from engine.catalog import Catalog
from engine.dump import DumpWriter
from engine.errors import OutputError, ReadingsError
from engine.history import History
from engine.readings import tick_message
from tests.topologies.live import DAY, live_on, send
from tests.topologies.test_live_cli import tocsin
from topologies import kafka as clients
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
        writer.keep()
    log = tmp_path / "alerts.jsonl"
    arguments = ["replay", str(tmp_path / "dump"), "--catalog", str(compiled)]
    try:
        main([*arguments, "--rules", str(DAY / "rules.toml"), "-o", str(log)])
    except SystemExit as end:
        assert end.code == 0
    assert len(log.read_text().splitlines()) > 20
    assert "rejected: not_json 1" in capsys.readouterr().out  # type: ignore[attr-defined]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    compiled = tmp_path / "city.catalog"
    Catalog.build(DAY, compiled, partitions=3)
    return Catalog.open(compiled)


def dumped(folder: Path, catalog: Catalog, partitions: Any = range(3)) -> Path:
    """Write a dump of one tick a partition."""
    dumps.make_folder(folder)
    writers = [DumpWriter(folder, partition, catalog.digest) for partition in partitions]
    for writer in writers:
        writer.add(0, None, tick_message(1_752_608_333_000))
        writer.close()
        writer.keep()
    return folder


def replay(folder: Path) -> int:
    where = ("--catalog", folder.parent / "city.catalog", "--rules", DAY / "rules.toml")
    return tocsin("replay", folder, *where)


def test_a_folder_with_a_dump_takes_no_other(tmp_path: Path, catalog: Catalog) -> None:
    folder = dumped(tmp_path / "dump", catalog)
    with pytest.raises(OutputError, match=r"holds a dump already \(partition-000"):
        dumps.make_folder(folder)


def test_a_dump_that_was_interrupted_is_no_dump(
    tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dump"
    dumps.make_folder(folder)
    writers = [DumpWriter(folder, partition, catalog.digest) for partition in range(3)]
    for writer in writers:
        writer.close()
    assert replay(folder) == 3
    writers[0].keep()
    assert replay(folder) == 3
    assert capsys.readouterr().err.count("a dump that was interrupted: dump again") == 2
    writers[0].path.unlink()
    assert replay(dumped(folder, catalog)) == 0


def test_a_replay_names_the_partitions_that_a_dump_lacks(
    tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(dumped(tmp_path / "dump", catalog, [1])) == 0
    assert "2 of the catalog's 3 partitions are not here: 0, 2" in capsys.readouterr().err
    assert replay(dumped(tmp_path / "whole", catalog)) == 0
    assert capsys.readouterr().err == ""


def test_a_replay_refuses_files_that_are_no_part_of_one_dump(
    tmp_path: Path, catalog: Catalog, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dumped(tmp_path / "dump", catalog)
    twin = folder / "partition-0009.parquet"
    twin.write_bytes((folder / "partition-0000.parquet").read_bytes())
    assert replay(folder) == 3
    assert "both of partition 0" in capsys.readouterr().err
    twin.write_bytes(b"torn")
    with pytest.raises(ReadingsError, match=r"partition-0009\.parquet: not a whole file of a dump"):
        dumps.find([folder])
    twin.unlink()
    dumped(tmp_path / "beyond", catalog, [7])
    assert replay(tmp_path / "beyond") == 3
    assert "of partition 7, the catalog has 3, from 0 on" in capsys.readouterr().err


def test_a_dump_is_refused_at_once_where_the_topic_is_not_the_catalogs(
    tmp_path: Path, kafka: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    live = live_on(tmp_path, kafka, "redis://127.0.0.1:1/0", partitions=3)
    prefix = live.settings.topic_prefix
    where = ["--kafka-brokers", kafka.bootstrap, "--topic-prefix", prefix]
    folder = tmp_path / "dump"
    assert tocsin("dump", folder, "--catalog", live.catalog, *where) == 3
    assert f"topic {prefix}readings: is not there" in capsys.readouterr().err
    send(live, [(2, tick_message(1))])
    other = tmp_path / "other.catalog"
    Catalog.build(DAY, other, partitions=4)
    assert tocsin("dump", folder, "--catalog", other, *where) == 3
    assert "has 3 partitions, must have 4" in capsys.readouterr().err
    assert not folder.exists()
    assert tocsin("dump", folder, "--catalog", live.catalog, *where) == 0
    assert "1 messages of 3 partitions" in capsys.readouterr().out
    nobody = ["--kafka-brokers", "127.0.0.1:1"]
    assert tocsin("dump", tmp_path / "d", "--catalog", live.catalog, *nobody) == 3
    assert "none of 127.0.0.1:1 answers" in capsys.readouterr().err


def test_what_a_client_raises_is_a_line_for_people() -> None:
    with (
        pytest.raises(clients.BrokerError, match="Kafka fails: KafkaError: gone"),
        clients.failing(),
    ):
        raise KafkaError("gone")
