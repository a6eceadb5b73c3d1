"""engine/API.md against `engine.api`: every function, every table, every column."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import engine.api as tocsin
from engine.errors import InputError
from engine.truth import LEVELS
from tests.analysis.studies import INCIDENTS, SPACE, Given, given
from tests.engine.replays import BEGIN_MS, RULES

PAGE = Path(tocsin.__file__).with_name("API.md").read_text(encoding="utf-8")
TYPES = {
    pa.string(): "text",
    pa.dictionary(pa.int32(), pa.string()): "name",
    pa.timestamp("ms", "UTC"): "time",
    pa.float64(): "number",
    pa.float32(): "number32",
    pa.int64(): "count",
    pa.int32(): "count32",
    pa.uint8(): "byte",
    pa.bool_(): "bool",
    pa.list_(pa.string()): "texts",
    pa.list_(pa.float64()): "numbers",
}
FUNCTIONS = [name for name in tocsin.__all__ if name.islower()]
ID = "well-1@"
LATER_MS = BEGIN_MS + 200_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return given(tmp_path_factory.mktemp("city"))


@pytest.fixture(scope="module")
def replayed(made: Given) -> tocsin.Replayed:
    return tocsin.replay(made.past, made.rules)


@pytest.fixture(scope="module")
def milder(made: Given) -> tocsin.Rules:
    return tocsin.changed(made.rules, {"profiles.methane.limits.high.blue": 14, "levels.hold_s": 5})


def sections() -> Iterator[tuple[str, str]]:
    for part in re.split(r"^###+ `", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("`\n")
        yield heading.partition("(")[0], body.partition("\n#")[0]


def columns() -> dict[str, list[tuple[str, str]]]:
    """Return each documented table's columns and their types."""
    found = {}
    for name, body in sections():
        _, header, table = body.partition("| column | type | meaning |\n|---|---|---|\n")
        if header:
            rows = re.findall(r"^\| (\S+) \| (\w*) \| .*\|$", table, re.MULTILINE)
            found[name] = [(column.strip("`"), kind) for column, kind in rows]
    return found


def schema_of(table: pa.Table) -> list[tuple[str, str]]:
    return [(field.name, TYPES[field.type]) for field in table.schema]


def test_every_function_is_documented_with_its_signature() -> None:
    documented = dict(sections())
    for name in FUNCTIONS:
        (code,) = re.findall(r"^```python\n(.*?)\n```", documented[name], re.DOTALL | re.MULTILINE)
        written = re.sub(r"\(\s+", "(", re.sub(r"\s+\)", ")", " ".join(code.split())))
        parameters = inspect.signature(getattr(tocsin, name)).parameters.values()
        plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        text = str(inspect.Signature(plain)).replace("'", '"')
        assert written.partition(" ->")[0] == f"{name}{text}", name
    assert {name for name in documented if "." not in name} == set(FUNCTIONS)


def test_methods_are_documented_with_their_parameters(made: Given) -> None:
    methods = re.findall(r"`(Replayed|Scored|Traced|Swept|Solved)\.(\w+)\((.*?)\)`", PAGE)
    from engine.analysis.results.solved import Solved

    kinds = {"Solved": Solved} | {name: getattr(tocsin, name) for name in ("Replayed", "Scored")}
    kinds |= {"Traced": tocsin.Traced, "Swept": tocsin.Swept}
    for kind, name, written in methods:
        signature = inspect.signature(getattr(kinds[kind], name))
        known = set(signature.parameters)
        named = {part.partition("=")[0].strip(" *") for part in written.split(",")} - {""}
        assert named <= known, f"{kind}.{name}"
    for kind, cls in kinds.items():
        public = {name for name, _ in inspect.getmembers(cls, inspect.isfunction)}
        shown = {name for of, name, _ in methods if of == kind}
        assert {name for name in public if not name.startswith("_")} == shown, kind


@pytest.fixture(scope="module")
def tables(
    made: Given,
    replayed: tocsin.Replayed,
    milder: tocsin.Rules,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, pa.Table]:
    """Every table that the page has, with rows in most."""
    past, rules = made.past, made.rules
    scored = replayed.score(INCIDENTS)
    traced = tocsin.trace(past, rules, "well-1", BEGIN_MS, LATER_MS)
    swept = tocsin.sweep(past, {"given": rules, "milder": milder})
    diff = tocsin.diff(past, rules, milder, truth=INCIDENTS)
    alert_id = replayed.alerts()["alert_id"][0].as_py()
    explained = tocsin.explain(past, rules, alert_id, truth=INCIDENTS)
    folder = tmp_path_factory.mktemp("tests")
    (folder / "rules.toml").write_text(RULES)
    (folder / "one_test.toml").write_text(
        f'version = 1\nrules = "rules.toml"\ncatalog = "{made.files.catalog}"\n'
        'start = 2024-05-01T00:00:00\n[[test]]\nname = "gas"\n'
        'readings = { "well-1/ch4" = "5x3 25x5" }\n'
        '[[test.expect]]\nat = "6s"\nlevel = "yellow"\n'
    )
    tests = tocsin.run_tests(folder)
    assert tests.passed, tocsin.text(tests)
    study = tocsin.tune(past, rules, SPACE, truth=INCIDENTS, search="random", settings=4)
    solved = tocsin.solve(past, rules, truth=INCIDENTS, max_rate=9.0, turn=["deadband"])
    assert study.chosen is not None
    return {
        "sources": tocsin.sources(past),
        "sensors": tocsin.sensors(past),
        "readings": tocsin.readings(past),
        "Results.table": tests.table(),
        "Results.coverage_table": tests.coverage_table(),
        "Replayed.alerts": replayed.alerts(),
        "Replayed.episodes": replayed.episodes(),
        "Replayed.figures": replayed.figures(),
        "Replayed.operators": replayed.operators(),
        "Replayed.targets": replayed.targets(),
        "Scored.table": scored.table(),
        "Scored.incidents": scored.incidents(),
        "Traced.readings": traced.readings(),
        "Traced.signals": traced.signals(),
        "Traced.scores": traced.scores(),
        "Traced.limits": traced.limits(),
        "Swept.table": swept.table(),
        "Swept.steps": swept.steps(),
        "Swept.episodes": swept.episodes(),
        "Diff.table": diff.table(),
        "Diff.counts_table": diff.counts_table(),
        "Diff.keys_table": diff.keys_table(),
        "Diff.verdicts_table": diff.verdicts_table(),
        "Explanation.table": explained.table(),
        "Explanation.findings_table": explained.findings_table(),
        "Explanation.story_table": explained.story_table(),
        "Study.table": study.table(),
        "Study.chosen.table": study.chosen.table(),
        "Solved.figures": solved.figures(),
        "Solved.late": solved.late(),
        "Solved.own_limits": solved.own_limits(),
    }


def test_every_documented_table_is_here(tables: dict[str, pa.Table]) -> None:
    assert set(columns()) == set(tables)


@pytest.mark.parametrize("name", [name for name in columns() if name != "Study.table"])
def test_documented_columns_are_what_comes(tables: dict[str, pa.Table], name: str) -> None:
    assert schema_of(tables[name]) == columns()[name]


def test_documented_columns_of_a_study_stand_around_its_parameters_and_figures(
    tables: dict[str, pa.Table],
) -> None:
    written, there = columns()["Study.table"], schema_of(tables["Study.table"])
    gaps = [place for place, (column, _) in enumerate(written) if column == "…"]
    assert there[: gaps[0]] == written[: gaps[0]]
    assert there[-3:] == written[-3:]
    names = [column for column, _ in there]
    assert names[gaps[0]] == "profiles.methane.limits.high.blue"
    figures = [column for column, _ in columns()["Replayed.figures"]]
    assert set(figures) <= set(names)
    for level in LEVELS:
        for column, _ in columns()["Scored.table"][2:]:
            assert f"{column.replace('false_alarms', 'false')}_{level}" in names


def test_what_is_said_to_have_the_columns_of_another_table_has_them(
    made: Given, replayed: tocsin.Replayed, milder: tocsin.Rules
) -> None:
    known = columns()
    setting = [("setting", "count")]
    swept = tocsin.sweep(made.past, [made.rules, milder])
    traced = tocsin.trace(made.past, made.rules, "well-1", BEGIN_MS, LATER_MS)
    solved = tocsin.solve(made.past, made.rules, max_rate=0.5, turn=["off-delay"])
    false = replayed.score(INCIDENTS).false_alarms()
    assert schema_of(swept.figures()) == setting + known["Replayed.figures"]
    assert schema_of(swept.score(INCIDENTS)) == setting + known["Scored.table"]
    assert schema_of(false) == known["Replayed.episodes"]
    assert schema_of(traced.alerts()) == known["Replayed.alerts"]
    assert schema_of(solved.changes()) == known["Study.chosen.table"]
    assert solved.table().num_rows == len(solved.solution.trials)


def test_a_history_without_readings_gives_the_same_columns_and_no_rows(made: Given) -> None:
    nothing = tocsin.past(made.files.catalog, made.readings, until="2001-01-01")
    replayed = tocsin.replay(nothing, made.rules)
    swept = tocsin.sweep(nothing, [made.rules])
    found = {
        "Replayed.alerts": replayed.alerts(),
        "Replayed.episodes": replayed.episodes(),
        "Swept.steps": swept.steps(),
        "Swept.episodes": swept.episodes(),
        "readings": tocsin.readings(nothing),
        "Traced.readings": tocsin.trace(
            nothing, made.rules, "well-1", BEGIN_MS, LATER_MS
        ).readings(),
    }
    for name, table in found.items():
        assert table.num_rows == 0, name
        assert schema_of(table) == columns()[name], name
    with pytest.raises(InputError, match="no readings"):
        replayed.figures()
    assert "0 readings, 0 alerts" in repr(replayed)


def test_polars_and_duckdb_take_every_table(tables: dict[str, pa.Table]) -> None:
    with duckdb.connect() as connection:
        for name, table in tables.items():
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame) and frame.height == table.num_rows, name
            connection.register("given", table)
            # quoted where the page says so, and nowhere else: words of SQL would be something else
            names = [f'"{c}"' if c in ("end", "limit") or not c.isidentifier() else c
                     for c in table.column_names]  # fmt: skip
            back = connection.sql(f"SELECT {', '.join(names)} FROM given AS given").pl()
            assert back.columns == table.column_names, name
            whole = connection.sql("SELECT * FROM given").pl()
            assert back.equals(whole) and back.height == table.num_rows, name
