"""Commands and rules on their way into the log: what is refused where, and who pushed what."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from engine.catalog import Catalog
from engine.errors import CommandError, RulesError
from engine.partition import PartitionLine, Plans
from engine.rules_check import load
from tests.topologies.live import DAY
from topologies.commands import MOST_RULES_BYTES, ControlRecords, push_rules
from topologies.settings import Settings


def test_rules_too_large_for_a_message_are_refused(tmp_path: Path) -> None:
    Catalog.build(DAY, tmp_path / "catalog", partitions=2)
    catalog = Catalog.open(tmp_path / "catalog")
    controls = ControlRecords(catalog, Plans(catalog))
    text = (DAY / "rules.toml").read_text()
    usual = controls.of_rules(text.encode())
    assert not isinstance(usual, str)
    overhead = len(usual[0][1]) - len(text)
    room = MOST_RULES_BYTES - overhead - len(text)
    fits = text + "#" * room
    assert len(controls.of_rules(fits.encode())) == 2
    refused = controls.of_rules((fits + "#").encode())
    assert isinstance(refused, str) and "at most 1,047,552" in refused
    file = tmp_path / "rules.toml"
    file.write_text(fits + "##")
    with pytest.raises(RulesError, match="at most 1,047,552"):
        push_rules(Settings(), file, by=None, note=None, as_json=False)


def test_who_pushed_rules_and_why_is_in_the_log_and_changes_nothing_else(tmp_path: Path) -> None:
    Catalog.build(DAY, tmp_path / "catalog", partitions=1)
    plans = Plans(Catalog.open(tmp_path / "catalog"))
    controls = ControlRecords(plans.catalog, plans)
    text = (DAY / "rules.toml").read_text()
    other = text.replace("hold_s = ", "hold_s = 1", 1).encode()
    headers = [("by", "李伟".encode()), ("note", b"fewer false alarms"), ("at", b"\xff")]
    by_whom: list[dict[str, str]] = []
    for given in (headers, []):
        found = controls.of_rules(other, given)
        assert not isinstance(found, str)
        [(_, record)] = found
        line = PartitionLine(plans, plans.add(load(DAY / "rules.toml")), 0)
        outcome = line.take([0], line.decode([record]))
        assert outcome.rejects == [] and outcome.new_rules is not None
        assert outcome.new_rules.digest == line.rules == plans.compile(other.decode())
        said = orjson.loads(record)
        by_whom.append({key: said[key] for key in ("by", "note") if key in said})
        assert (outcome.new_rules.by, outcome.new_rules.note) == (said.get("by"), said.get("note"))
    assert by_whom == [{"by": "李伟", "note": "fewer false alarms"}, {}]
    refused = controls.of_rules(other, [("by", b"two\nlines")])
    assert isinstance(refused, str) and "by: must be one line" in refused
    with pytest.raises(CommandError, match="note: must have 1 to 1000 characters"):
        push_rules(Settings(), DAY / "rules.toml", by="li", note="x" * 1001, as_json=False)
