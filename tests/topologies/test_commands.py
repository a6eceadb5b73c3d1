"""Rules that no message of the log can hold are refused, where they are pushed and in a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.catalog import Catalog
from engine.errors import RulesError
from engine.partition import Plans
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
