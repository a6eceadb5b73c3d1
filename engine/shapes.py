"""A table of somebody's file to readings: what the adapter says, applied to one batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.adapters import TIME_COLUMNS, Adapter
from engine.arrow_views import column_of, mask, nulls, repeated, texts
from engine.columns import Clock, Times, UnreadableRow, qualities, values
from engine.errors import Fault, ReadingsError
from engine.readings import Readings
from engine.rules_base import one_of
from engine.sensor_ids import CATALOG_KEY, SensorIds, Tally, Template
from kernels.layout import UNKNOWN


class Shape:
    """One file's table under an adapter: the columns it wants, and their batches as readings."""

    def __init__(
        self,
        adapter: Adapter,
        schema: pa.Schema,
        path: Path,
        keys: Mapping[str, str],
        catalog: Any,
        ids: SensorIds,
        tally: Tally,
    ) -> None:
        self.adapter, self.path, self.schema, self.keys = adapter, path, schema, keys
        self.names = Counter(schema.names)
        self.ids, self.tally = ids, tally
        self.template = Template(adapter.template, path)
        self.clock = Clock(adapter.time)
        self.wants: dict[str, str] = {}
        """Columns of the file by what they are for: `time`, `id`, `value`, `quality`."""
        self.time = self._time_column()
        self.sensor: str | None = None
        self.dense = False
        self._index: NDArray[np.int32] | None = None
        if adapter.shape == "long":
            self._long(catalog)
        else:
            self._wide()

    def _time_column(self) -> str | None:
        keys = self.adapter.time
        if keys.step_s is not None:
            return None
        if keys.column is None:
            for name in TIME_COLUMNS:
                if name in self.names:
                    return self._want(name, "time")
            known = ", ".join(repr(name) for name in TIME_COLUMNS)
            raise self._fault(f"no column of the time ({known}); there are {self._there_are()}")
        return self._want(keys.column, "time")

    def _want(self, name: str, role: str) -> str:
        if name not in self.keys:
            if name not in self.names:
                text = f"no column {name!r}{one_of(name, self.names, all_if_none=False)}"
                raise self._fault(f"{text}; there are {self._there_are()}")
            if self.names[name] > 1:
                raise self._fault(f"two columns are called {name!r}")
            self.wants[name] = role
        return name

    def _there_are(self) -> str:
        shown = ", ".join(repr(name) for name in islice(self.names, 20))
        return shown + (f" and {len(self.names) - 20} more" if len(self.names) > 20 else "")

    def _fault(
        self, problem: str, *, column: str | None = None, row: int | None = None
    ) -> ReadingsError:
        text = str(Fault(file=str(self.path), row=row, key=column, problem=problem))
        return ReadingsError(" ".join(text.split()))  # names of columns may hold anything

    def _long(self, catalog: Any) -> None:
        adapter = self.adapter
        self.sensor = None if self.template.constant else self._want(adapter.sensor.column, "id")
        self.value = self._want(adapter.value.column, "value")
        self.quality = None
        if adapter.quality is not None:
            self.quality = self._want(adapter.quality.column, "quality")
        elif "quality" in self.names and "quality" not in self.wants:
            self.quality = self._want("quality", "quality")
        self.good = adapter.quality.good if adapter.quality else (0,)
        digest = (self.schema.metadata or {}).get(CATALOG_KEY)
        if digest is None or self.sensor is None or self.sensor in self.keys:
            return
        if self.schema.field(self.sensor).type != pa.int32() or not self.template.plain:
            return
        theirs = digest.decode("ascii", "replace")
        if theirs != catalog.digest:
            problem = f"holds indices of another catalog, {theirs[:40]!r}, not {catalog.digest!r}"
            raise self._fault(problem, column=self.sensor)
        self.dense = True

    def _wide(self) -> None:
        keys = self.adapter.sensor
        if keys.columns is not None:
            self.columns = dict(keys.columns)
        else:
            left_out = set(keys.except_ or ())  # not all files need have them
            self.columns = {
                name: name for name in self.names if name != self.time and name not in left_out
            }
        if not self.columns:
            raise self._fault("no column of a sensor")
        for name in self.columns:
            self._want(name, "value")
        self._ids = [self.template.id_of(name) for name in self.columns.values()]
        self._index = self.ids.all(self._ids)

    @property
    def width(self) -> int:
        """Readings of one row."""
        return len(self.columns) if self.adapter.shape == "wide" else 1

    def readings(self, batch: pa.RecordBatch, first_row: int) -> Readings:
        """Return the readings of a batch in order; `first_row` is its place in the file, from 0."""
        try:
            times = self.times(batch, first_row)
            if times.missing is not None and times.missing.any():
                self.tally.no_time += int(times.missing.sum()) * self.width
                keep = ~times.missing
                batch = batch.filter(mask(keep))
                times = Times(times.event_ms[keep], None)
            if self.adapter.shape == "wide":
                return self._wide_readings(batch, times.event_ms)
            return self._long_readings(batch, times.event_ms)
        except _ColumnFault as fault:
            row = None if fault.row is None else first_row + fault.row + 1
            raise self._fault(str(fault), column=fault.column, row=row) from None

    def _column(self, batch: pa.RecordBatch, name: str, *, decoded: bool = True) -> pa.Array:
        if name in self.keys:
            key = self.keys[name]
            if not decoded:
                codes = column_of(np.zeros(len(batch), np.int32), pa.int32())
                return pa.DictionaryArray.from_arrays(codes, texts([key]))
            return repeated(key, len(batch))
        column = batch.column(batch.schema.get_field_index(name))
        if decoded and pa.types.is_dictionary(column.type):
            return column.dictionary_decode()
        return column

    def times(self, batch: pa.RecordBatch, first_row: int) -> Times:
        """Return the event times of a batch."""
        if self.time is None:
            step_ms = float(self.adapter.time.step_s or 0) * 1000
            row = np.arange(first_row, first_row + len(batch))
            if step_ms.is_integer():
                elapsed = row * int(step_ms)
            else:
                elapsed = np.floor(row * step_ms + 0.5).astype(np.int64)
            return Times(elapsed + (self.clock.start_ms or 0), None)
        with _AtColumn(self.time):
            return self.clock.times(self._column(batch, self.time))

    def _converted(self, batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
        with _AtColumn(name):
            column = values(self._column(batch, name))
        conversion = self.adapter.units.get(name)
        return column if conversion is None else column * conversion.factor + conversion.offset

    def _long_readings(self, batch: pa.RecordBatch, event_ms: NDArray[np.int64]) -> Readings:
        value = self._converted(batch, self.value)
        if self.sensor is None:
            index = self._one_sensor(len(batch))
        else:
            with _AtColumn(self.sensor):
                column = self._column(batch, self.sensor, decoded=False)
                if self.dense:
                    index = self.ids.dense(column, value)
                else:
                    index = self.ids.resolve(column, self.template)
        if self.quality is None:
            return Readings(index, event_ms, value, good_qualities(len(index)))
        with _AtColumn(self.quality):
            quality = qualities(self._column(batch, self.quality), self.good)
        return Readings(index, event_ms, value, quality)

    def _one_sensor(self, n: int) -> NDArray[np.int32]:
        name = self.template.id_of("")
        index = int(self.ids.all([name])[0])
        if index == UNKNOWN and n:
            self.tally.note_unknown(repeated(name, n))
        return np.full(n, index, np.int32)

    def _wide_readings(self, batch: pa.RecordBatch, event_ms: NDArray[np.int64]) -> Readings:
        assert self._index is not None
        n = len(batch)
        table = np.empty((n, self.width))
        for place, name in enumerate(self.columns):
            table[:, place] = self._converted(batch, name)
        value = table.reshape(-1)
        index = np.tile(self._index, n)
        event_ms = np.repeat(event_ms, self.width)
        if self.adapter.sensor.missing == "skip":
            gone = np.isnan(value)
            if gone.any():
                keep = ~gone
                value, index, event_ms = value[keep], index[keep], event_ms[keep]
        for place in np.flatnonzero(self._index == UNKNOWN).tolist():
            column = table[:, place]
            seen = n
            if self.adapter.sensor.missing == "skip":
                seen -= int(np.isnan(column).sum())
            if seen:
                self.tally.note_unknown(repeated(self._ids[place], seen))
        return Readings(index, event_ms, value, good_qualities(len(index)))

    def nameless(self, batch: pa.RecordBatch) -> NDArray[np.bool_]:
        """Return which rows of a long table have nothing in the column of the sensor."""
        assert self.sensor is not None
        return nulls(self._column(batch, self.sensor, decoded=False))

    def bound_ms(self, lowest: int, highest: int) -> tuple[int, int]:
        """Return bounds of event time for bounds of the time column as the file counts it."""
        assert self.time is not None
        kind = self.schema.field(self.time).type
        width = np.int32 if kind.bit_width == 32 else np.int64
        ends = column_of(np.array([lowest, highest], width), kind)
        first, last = self.clock.times(ends).event_ms.tolist()
        if not self.clock.zone.fixed:
            first, last = first - 86_400_000, last + 86_400_000
        return first, last


class _ColumnFault(ValueError):
    def __init__(self, problem: str, column: str, row: int | None) -> None:
        super().__init__(problem)
        self.column, self.row = column, row


class _AtColumn:
    """Names the column in what is raised inside."""

    def __init__(self, column: str) -> None:
        self.column = column

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (ValueError, pa.ArrowException, TypeError)):
            row = error.row if isinstance(error, UnreadableRow) else None
            text = " ".join(str(error).split())
            raise _ColumnFault(text, self.column, row) from error


_GOOD = np.zeros(1 << 18, np.uint8)
_GOOD.flags.writeable = False


def good_qualities(n: int) -> NDArray[np.uint8]:
    """Return a column of good qualities, which nobody may write to."""
    return _GOOD[:n] if n <= len(_GOOD) else np.zeros(n, np.uint8)
