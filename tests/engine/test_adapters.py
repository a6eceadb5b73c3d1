"""Adapters: what they refuse, what they say about it, and their documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.adapters import BUILT_IN, documented_keys, load, parse
from engine.errors import AdapterError

PAGE = Path(__file__).parents[2] / "engine" / "ADAPTERS.md"
LONG = 'version = 1\nshape = "long"\n'
WIDE = 'version = 1\nshape = "wide"\n'


def test_every_key_stands_in_the_table_of_the_documentation_and_no_other_does():
    cells = re.findall(r"^\| `([\w.]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert cells == documented_keys()


@pytest.mark.parametrize("example", re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL))
def test_the_examples_of_the_documentation_load(example):
    assert parse(example).name


def test_defaults_in_the_documentation_are_those_of_the_built_in_adapter():
    table = PAGE.read_text()
    for key, default in (
        ("sensor.column", BUILT_IN.sensor.column),
        ("sensor.missing", BUILT_IN.sensor.missing),
        ("time.format", BUILT_IN.time.format),
        ("time.zone", BUILT_IN.time.zone),
        ("value.column", BUILT_IN.value.column),
        ("csv.encoding", BUILT_IN.csv.encoding),
    ):
        assert f"| `{key}` | `{default}` |" in table
    for null in BUILT_IN.csv.null_values[1:]:
        assert f"`{null}`" in table


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("version = 2\nshape = 'long'", "line 1: version: input should be 1, got 2"),
        ("version = 1", "shape: is required"),
        (LONG + "[senser]\n", "line 3: senser: unknown key (did you mean sensor?)"),
        (LONG + "[time]\ncolum = 't'\n", "line 4: time.colum: unknown key (did you mean column?)"),
        (LONG + "[time]\nzone = 'Mars'\n", "line 4: time.zone: must be UTC, an offset such as"),
        (LONG + "[time]\nzone = '+25:00'\n", "time.zone: an offset must lie between"),
        (LONG + "[time]\nformat = 'epoch'\n", "time.format: unknown"),
        (LONG + "[time]\nformat = '%d/%m %H:%M'\n", "time.format: has no year: %Y"),
        (LONG + "[time]\nstart = 2024-01-01\n", "time.start: needs step_s"),
        (LONG + "[time]\nstart = 7\nstep_s = 1\n", "time.start: must be a time such as"),
        (LONG + "[time]\nstep_s = 1\n", "time.step_s: a row clock needs a start"),
        (LONG + "[time]\nstep_s = 0\n", "time.step_s: input should be greater than 0, got 0"),
        (LONG + "[time]\ncolumn = 't'\nstep_s = 1\n", "time.step_s: goes without column"),
        (
            LONG + "[time]\ncolumn = 't'\nstart = 2024-01-01\nformat = 'iso'\n",
            "time.format: with a start",
        ),
        (LONG + "[sensor]\nexcept = ['a']\n", "line 4: sensor.except: is for wide tables"),
        (LONG + "[sensor]\ntemplate = '{column}'\n", "{column} is for the other shape"),
        (LONG + "[sensor]\ntemplate = '{place}'\n", "may use {file}, {folder}, {sensor}, {column}"),
        (LONG + "[sensor]\ntemplate = '{'\n", "sensor.template: not a template"),
        (LONG + "[sensor]\ncolumn = 'a'\ntemplate = 'x'\n", "must use {sensor}"),
        (LONG + "[units.pressure]\nfactor = 2\n", "a long table has its values in 'value'"),
        (LONG + "[units.value]\nfactor = 0\n", "units.value.factor: must not be 0, got 0.0"),
        (LONG + "[units.value]\nfator = 2\n", "units.value.fator: unknown key (did you mean fac"),
        (LONG + "[csv]\ndecimal = ','\n", "csv.decimal: must differ from the delimiter ','"),
        (LONG + "[csv]\nencoding = 'utf-9'\n", "csv.encoding: unknown encoding, got 'utf-9'"),
        (WIDE + "[sensor]\ncolumn = 'a'\n", "sensor.column: is for long tables"),
        (WIDE + "[quality]\n", "line 3: quality: is for long tables"),
        (WIDE + "[sensor]\ntemplate = '{file}'\n", "a wide table needs {column} in it"),
        (WIDE + "[sensor]\ncolumns = {}\n", "sensor.columns: must name at least one column"),
        (
            WIDE + "[sensor]\ncolumns = { a = 'b' }\nexcept = ['c']\n",
            "sensor.except: goes without columns",
        ),
    ],
)
def test_a_fault_is_named_with_its_line_key_and_value(text, fault):
    with pytest.raises(AdapterError) as caught:
        parse(text, file="site.toml")
    assert fault in str(caught.value)
    assert str(caught.value).startswith("site.toml: ")


def test_all_faults_come_in_one_run_in_the_order_of_their_lines():
    text = (
        WIDE + "[sensor]\ncolumn = 'a'\nmissing = 'drop'\n[time]\nzone = 'Mars'\n[csv]\nquote=''\n"
    )
    with pytest.raises(AdapterError) as caught:
        parse(text)
    found = [(fault.line, fault.key) for fault in caught.value.faults]
    assert found == [
        (4, "sensor.column"),
        (5, "sensor.missing"),
        (7, "time.zone"),
        (9, "csv.quote"),
    ]


def test_a_file_that_is_missing_or_no_toml_is_one_line(tmp_path):
    with pytest.raises(AdapterError, match=r"nowhere.toml: can't be read: No such file"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("version = \n")
    with pytest.raises(AdapterError, match=r"bad.toml: not TOML: .*line 1"):
        load(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(AdapterError, match=r"bad.toml: must be UTF-8 text"):
        load(tmp_path / "bad.toml")


def test_no_adapter_is_the_built_in_one():
    assert load(None) is BUILT_IN
