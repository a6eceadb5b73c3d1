"""Nothing of a worker makes pyarrow import pandas: where it is installed, that takes half a second.

Many conversions of pyarrow import it, once in a process, the first time that one is used.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.catalog_build import build_catalog
from tests.cities import coupling, sensor, source, write_folder
from tests.engine.replays import city

ROOT = Path(__file__).parents[1]
WATCHED = """
import sys, traceback
from pathlib import Path

class Watch:
    stacks = []
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            self.stacks.append("".join(traceback.format_stack()))

sys.meta_path.insert(0, Watch())
folder = Path(sys.argv[1])

import numpy as np, orjson, pyarrow as pa
from engine import adapt, adapters, commands, wire
from engine.arrow_views import column_of, mask, texts
from engine.catalog import Catalog
from engine.partition import PartitionLine, Plans
from engine.readings import Readings, tick_message
from engine.resume import Resumer
from engine.rules_check import load
from engine.snapshots import SnapshotStore
from engine.split import split
from topologies.commands import ControlRecords
BEGIN_MS = 1_714_521_600_000

def stream(sensor, n=2):
    columns = {
        "sensor": sensor,
        "event_ms": column_of(np.arange(n) + BEGIN_MS, pa.int64()),
        "value": column_of(np.full(n, 20.0), pa.float64(), np.arange(n) == 1),
        "quality": column_of(np.zeros(n, np.uint8), pa.uint8()),
    }
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()

def coded(codes, names):
    codes = column_of(np.array(codes, np.int32), pa.int32(), np.array(codes) < 0)
    return pa.DictionaryArray.from_arrays(codes, texts(names))

def check():
    assert not Watch.stacks, "pandas was looked for:\\n" + Watch.stacks[0]
"""
LINE = """
catalog, less = Catalog.open(folder / "city.catalog"), Catalog.open(folder / "less.catalog")
rules = load(folder / "rules.toml")
def begun(catalog):
    plans = Plans(catalog)
    return plans, PartitionLine(plans, plans.add(rules), home)
home = catalog.partition_of(catalog.source_index("well-1"))
plans, line = begun(catalog)
index = catalog.sensor_id.to_pylist().index("well-1/ch4")
n = 100
readings = Readings.of(
    np.full(n, index), BEGIN_MS + 1000 * np.arange(n), np.where(np.arange(n) % 50 < 25, 70.0, 1.0)
)
other = Readings.of(np.full(1, index), [BEGIN_MS + 200_000], [70.0])
shelve = {"event_ms": BEGIN_MS + 90_000, "id": "1", "by": "Li", "until_ms": BEGIN_MS + 900_000}
shelve = commands.encode(commands.Shelve(source="well-1", **shelve))
payloads = [
    *split(readings, catalog)[home],
    *wire.messages(readings, catalog, "json"),
    *wire.messages(readings, catalog, "ndjson"),
    stream(texts(["well-1/ch4", None])),
    stream(coded([0, -1], ["well-1/ch4"])),
    *(record for _, record in ControlRecords(catalog, plans).of_command(shelve)),
    tick_message(BEGIN_MS + 100_000),
    *split(other, catalog)[home],
]
outcome = line.take(range(len(payloads)), line.decode(payloads))
assert len(outcome.alerts) > 2 and outcome.rejects, outcome
check()
store = SnapshotStore(str(folder / "store"))
store.write(line.freeze(), len(payloads))
assert Catalog.open(next((folder / "store").glob("*.catalog"))).digest == catalog.digest
check()
plans, line = begun(less)
notes = line.restore(Resumer(store, adopt_catalog=True))
assert "had an alert up" in notes[0], notes
check()
"""
FEEDS = """
catalog = Catalog.open(folder / "city.catalog")
LONG = '''
version = 1
shape = "long"
sensor = {column = "device", template = "{sensor}/ch4"}
time = {column = "when", format = "%s"%s}
value = {column = "reading"}
quality = {column = "state", good = [%s]}
'''
ONE = '''
version = 1
shape = "wide"
time = {column = "when"}
sensor = {columns = {value = "nobody"}}
'''
def taken(adapter, *rows):
    payloads = [row if type(row) is bytes else orjson.dumps(row) for row in rows]
    return adapt.Feed(adapters.parse(adapter), catalog).adapt(payloads)

def row(when, state, device="well-1"):
    return {"device": device, "when": when, "reading": 5, "state": state}

for form, zone, when in (
    ("iso", "", "2024-05-01T08:00:00+08:00"),
    ("iso", "", "2024-05-01T08:00:00.123456789+08:00"),
    ("%Y-%m-%d %H:%M:%S", ', zone = "+08:00"', "2024-05-01 08:00:00"),
    ("ms", "", str(BEGIN_MS)),
    ("ms", "", BEGIN_MS),
    ("s", "", BEGIN_MS / 1000),
):
    for good, state in (('"ok"', "ok"), ("0, 7", 7), ("0, 7", 7.0), ("0", None), ("0", True)):
        adapter = LONG % (form, zone, good)
        rows = row(when, state), row(None, state), row(when, None), row(when, state, "nobody")
        readings, rejected = taken(adapter, *rows)
        assert len(readings) == 2, (form, good, rejected)
        check()
device = coded([0, 1], ["well-1", "nobody"])
columns = {
    "device": device,
    "when": column_of(np.arange(2) + BEGIN_MS, pa.timestamp("ms", "UTC")),
    "reading": column_of(np.arange(2), pa.int64()),
    "state": column_of(np.zeros(2), pa.float64()),
}
batch = pa.record_batch(columns)
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, batch.schema) as writer:
    writer.write_batch(batch)
readings, _ = taken(LONG % ("auto", "", "0"), sink.getvalue().to_pybytes())
assert len(readings) == 1
readings, rejected = taken(ONE, {"when": BEGIN_MS, "value": 3})
assert not len(readings) and rejected[0].reason == "unknown_sensor"
check()
"""
AFTER = """
pa.array([1])
assert Watch.stacks, "the watch is blind"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A city, and the same without the source at which something goes on."""
    folder = tmp_path_factory.mktemp("cities")
    city(folder)
    sensors = [sensor("well-2/ch4", "well-2", unit="%LEL"), sensor("well-3/ch4", "well-3")]
    pipes = [coupling("well-2", "well-3")]
    write_folder(folder / "less", [source("well-2"), source("well-3")], sensors, pipes)
    build_catalog(folder / "less", folder / "less.catalog", 2, None)
    return folder


@pytest.mark.parametrize("program", [LINE, FEEDS], ids=["line", "feeds"])
def test_no_path_of_a_worker_looks_for_pandas(folder, program):
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + program + AFTER, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
