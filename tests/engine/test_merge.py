"""Merging lanes: a total order, whatever is open, however it is cut."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import merge
from engine.errors import OutputError
from engine.merge import Chunk, Lane, Merge, Spills
from engine.readings import Readings

Row = tuple[int, int, int]


def lane(number: int, keys: list[int], *, cut: int = 3, bound: int | None = None) -> Lane:
    """Return a lane whose readings say their file (sensor) and row (value)."""

    def chunks(n_rows: int) -> Iterator[Chunk]:
        step = min(cut, n_rows)
        for start in range(0, len(keys), step):
            part = keys[start : start + step]
            rows = np.arange(start, start + len(part))
            yield Chunk(
                np.array(part, np.int64),
                Readings.of(np.full(len(part), number), part, rows, rows % 3),
            )

    lowest = keys[0] if keys else 0
    return Lane(number, lowest if bound is None else bound, chunks)


def merged(lanes: list[Lane], **options: int) -> list[Row]:
    return [
        (int(key), int(number), int(row))
        for readings in Merge(lanes, **options)
        for key, number, row in zip(readings.event_ms, readings.sensor, readings.value, strict=True)
    ]


FILES = st.lists(st.lists(st.integers(-1, 30), max_size=12).map(sorted), max_size=7)


@given(FILES, st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_the_order_is_by_key_then_file_then_row_however_it_is_read(files, cut, max_open, early):
    lanes = [
        lane(number, keys, cut=cut, bound=-1 if early else None)
        for number, keys in enumerate(files)
    ]
    expected = sorted(
        (key, number, row) for number, keys in enumerate(files) for row, key in enumerate(keys)
    )
    assert merged(lanes, max_open=max_open, budget_rows=8) == expected
    assert merged(lanes) == expected


def test_qualities_follow_their_readings_through_a_spill():
    lanes = [lane(number, list(range(number, 60, 5))) for number in range(5)]
    for readings in Merge(lanes, max_open=2):
        assert (readings.quality == readings.value % 3).all()


def test_a_lane_is_opened_only_when_its_turn_comes():
    opened: list[int] = []

    def watched(number: int, keys: list[int]) -> Lane:
        inner = lane(number, keys)

        def chunks(n_rows: int) -> Iterator[Chunk]:
            opened.append(number)
            yield from inner.chunks(n_rows)

        return inner._replace(chunks=chunks)

    log = iter(Merge([watched(1, list(range(100, 110))), watched(0, list(range(10)))]))
    next(log)
    assert opened == [0]
    list(log)
    assert opened == [0, 1]


def test_few_readings_of_each_lane_are_in_flight():
    taken = [0, 0]

    def counted(number: int) -> Lane:
        inner = lane(number, list(range(100_000)), cut=1 << 20)

        def chunks(n_rows: int) -> Iterator[Chunk]:
            for chunk in inner.chunks(n_rows):
                taken[number] += len(chunk.key)
                yield chunk

        return inner._replace(chunks=chunks)

    emitted = 0
    for readings in Merge([counted(0), counted(1)], budget_rows=4096):
        emitted += len(readings)
        assert sum(taken) - emitted <= 2 * 4096
    assert emitted == 200_000


def test_temporary_files_are_gone_when_the_merge_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log = iter(Merge([lane(n, list(range(n, 200, 5))) for n in range(5)], max_open=2))
    next(log)
    assert list(tmp_path.iterdir())
    log.close()
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_one_line_that_names_the_folder(monkeypatch):
    def full(chunk: Chunk) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge, "_as_batch", full)
    spills = Spills()
    with pytest.raises(OutputError, match=r"temporary files .*No space left.*TMPDIR"):
        spills.spill(lane(0, [1]).chunks(1))
    spills.close()
