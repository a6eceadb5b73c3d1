"""The file that names other departments' topics: what it may not say, and when a topic may come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.errors import SettingsError
from tests.topologies.live import NO_REDIS, Live, live_on, send, wait_for
from topologies.ingest import load_feeds
from topologies.settings import TOPICS, Settings

ADAPTER = """
version = 1
shape = "long"
sensor = {column = "device"}
time = {column = "t"}
value = {column = "v"}
"""


def written(folder: Path, feeds: str, **adapters: str) -> Path:
    for name, text in adapters.items():
        (folder / f"{name}.toml").write_text(text)
    path = folder / "feeds.toml"
    path.write_text(feeds)
    return path


def refused(path: Path, own: list[str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_feeds(path, own or [])
    return list(caught.value.lines())


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_of_tocsin_itself_is_no_feed(topic: str, tmp_path: Path) -> None:
    settings = Settings(topic_prefix="l.")
    own = [settings.topic(each) for each in TOPICS]
    path = written(tmp_path, f'[topics."l.{topic}"]\nadapter = "a.toml"\n', a=ADAPTER)
    assert refused(path, own) == [
        "1 fault in the feeds",
        f'{path}: line 1: topics."l.{topic}": is a topic of Tocsin itself: what it writes there '
        "would come back to it",
    ]
    assert load_feeds(path, [f"x.{topic}"]).keys() == {f"l.{topic}"}


def test_every_fault_of_the_file_and_of_the_adapters_is_told_with_its_topic(tmp_path: Path) -> None:
    feeds = """
[topics.gas]
adapter = "bad.toml"
[topics.rain]
adapter = "none.toml"
[topics.wind]
adapter = "clock.toml"
[topics.heat]
"""
    clock = 'version = 1\nshape = "long"\ntime = {start = "2024-05-01T00:00:00Z", step_s = 1}\n'
    bad = 'version = 1\nshape = "long"\nspeed = 1\nsize = 2\n'
    path = written(tmp_path, feeds, bad=bad, clock=clock)
    toml = {name: tmp_path / f"{name}.toml" for name in ("bad", "none", "clock")}
    said = refused(path)
    assert len(said) == 7
    begins = [
        "6 faults in the feeds",
        f'{path}: line 2: topics."gas": {toml["bad"]}: 2 faults in the adapter',
        f"{toml['bad']}: line 3: speed: unknown key",
        f"{toml['bad']}: line 4: size: unknown key",
        f'{path}: line 4: topics."rain": {toml["none"]}: can\'t be read',
        f'{path}: line 6: topics."wind": {toml["clock"]}: time.step_s: a row clock is for files',
        f'{path}: line 8: topics."heat": must have the key adapter and no other',
    ]
    for line, begin in zip(said, begins, strict=True):
        assert line.startswith(begin)


@pytest.mark.slow
def test_a_topic_that_comes_while_the_worker_runs_is_read(kafka: Any, tmp_path: Path) -> None:
    live: Live = live_on(tmp_path, kafka, NO_REDIS, router="false")
    topic = live.settings.topic("gas")
    feeds = written(tmp_path, f'[topics."{topic}"]\nadapter = "a.toml"\n', a=ADAPTER)
    worker = live.start("a", feeds=feeds)
    try:
        wait_for(lambda: worker.log.read_text().count("without a snapshot") == 4, "partitions")
        assert f"a feed's topic is not there yet: it is read once it is [tocsin] topic={topic}" in (
            " ".join(worker.log.read_text().split())
        )
        send(live, [(0, orjson.dumps({"t": 1_752_681_600_000, "v": 60}))], "gas")
        (letters,) = wait_for(lambda: live.messages("rejects"), "the reject", 30).values()
        letter = orjson.loads(letters[0].value)
        assert letter["reason"] == "no_sensor" and "'device'" in letter["detail"]
        assert "a feed's topic is there now" in worker.log.read_text()
    finally:
        live.stop()
