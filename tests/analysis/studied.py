"""Folders of studies for tests of their reports: small, hostile, of very many settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from engine.analysis.tuning.study import Study, tune
from engine.rules import Rules
from tests.analysis.reported import HOSTILE
from tests.analysis.studies import SPACE, given

AIM: dict[str, Any] = {
    "objectives": ["min alarms", "min missed_blue"],
    "requirements": ["false_blue <= 20"],
}
HOSTILE_SPACE = f"""
version = 1
[[vary]]
name = '''{HOSTILE}'''
scale = ["profiles.methane.limits.high"]
values = [0.8, 1, 1.3]
[[vary]]
name = '''__proto__'''
same = ["profiles.*.limits.off_delay_s"]
values = [10, 60]
"""


def studied(folder: Path, *, truth: bool = True, space: str = SPACE, **options: Any) -> Study:
    """Return a study of the small city, kept in `folder / "study"`; 6 of 24 are refused."""
    made = given(folder)
    return tune(
        made.past,
        made.rules,
        made.space(space),
        measure=made.measure if truth else None,
        folder=folder / "study",
        threads=1,
        **((AIM if truth else {}) | options),
    )


def hostile(folder: Path) -> Study:
    """Return a study whose names would all like to be code."""
    made = given(folder)
    text = made.rules.text.replace('"Two wells and a factory"', f"'''{HOSTILE}'''")
    return tune(
        made.past,
        Rules.parse(text),
        made.space(HOSTILE_SPACE),
        measure=made.measure,
        folder=folder / "study",
        threads=1,
        objectives=["min alarms", "min missed_blue"],
    )


def many(study: Study, folder: Path, n: int, *, n_parameters: int = 12) -> Path:
    """Write a folder like that of a study, of `n` settings with figures that all differ."""
    rng = np.random.default_rng(7)
    table = study.table()
    names = [f"profiles.quantity_{i}.limits.high.blue" for i in range(n_parameters)]
    columns: dict[str, Any] = {
        "setting": np.arange(n),
        "origin": ["baseline", *["random"] * (n - 1)],
        "batch": np.zeros(n, np.int32),
    }
    # drawn as tune does: four digits
    columns |= {name: np.round(rng.uniform(1, 100, n), 2) for name in names}
    refused = rng.random(n) < 0.05
    refused[0] = False
    columns["digest"] = pa.array(["d"] * n, mask=refused)
    columns["refused"] = pa.array(["profiles.x: must ascend"] * n, mask=~refused)
    behind = ("feasible", "front", "chosen")
    for field in list(table.schema)[table.column_names.index("refused") + 1 :]:
        if field.name in behind:
            continue
        if pa.types.is_integer(field.type):
            columns[field.name] = pa.array(rng.poisson(800, n), mask=refused)
        elif pa.types.is_floating(field.type):
            columns[field.name] = pa.array(rng.gamma(2, 100, n), mask=refused)
        else:
            columns[field.name] = pa.array(["nobody"] * n, mask=refused)
    columns |= {name: np.zeros(n, bool) for name in behind}
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "settings.parquet")
    said = orjson.loads((study.folder / "study.json").read_bytes()) if study.folder else {}
    chosen = said["chosen"] | {"changes": [], "setting": 3}
    said |= {"settings": n, "requirements": [], "chosen": chosen}
    said |= {"objectives": ["min delay_median_s_blue", "min false_per_sensor_day_blue"]}
    (folder / "study.json").write_bytes(orjson.dumps(said))
    (folder / "rules.toml").write_text(study.chosen.text if study.chosen else "")
    return folder
