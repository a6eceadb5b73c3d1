"""The notebook runs from its first cell to its last, and is kept without what it once printed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engine.api as tocsin

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "replay_data/tune_the_day.ipynb"
NEEDED = ("nbclient", "nbformat", "ipykernel", "duckdb", "polars", "optuna", "tomlkit")
CELL_S = 600
"""The first cells compile kernels where none are cached yet."""
COMPILING = "NumbaExperimentalFeatureWarning"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """Return the notebook as it is in the repository."""
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def codes(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_no_output_and_no_count_of_a_run_is_kept(kept: dict[str, Any]) -> None:
    for cell in codes(kept):
        assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
        assert cell["metadata"] == {}, cell["id"]
    assert set(kept["metadata"]) == {"kernelspec", "language_info"}
    assert kept["metadata"]["kernelspec"]["name"] == "python3"


def test_no_path_of_a_machine_is_in_it(kept: dict[str, Any]) -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|Users|work|mnt|opt)/|[A-Z]:\\\\", text)
    assert str(ROOT) not in text


def test_every_cell_has_a_name_and_code_is_led_up_to_by_words(kept: dict[str, Any]) -> None:
    names = [cell["id"] for cell in kept["cells"]]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z-]{3,20}", name) for name in names)
    assert kept["cells"][0]["cell_type"] == "markdown"
    kinds = [cell["cell_type"] for cell in kept["cells"]]
    runs = re.findall("c+", "".join(kind[0] for kind in kinds))
    assert max(map(len, runs)) <= 3, "four cells of code without a word between"


def test_it_shows_most_functions_of_the_api(kept: dict[str, Any]) -> None:
    source = "".join("".join(cell["source"]) for cell in codes(kept))
    used = set(re.findall(r"\btocsin\.(\w+)", source))
    assert used <= set(tocsin.__all__)
    functions = {name for name in tocsin.__all__ if name.islower()}
    assert functions - used <= {"readings", "sensors", "solve"}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """Run the notebook in a folder of its own; yield it with its outputs, and the folder."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _without(f"the notebook needs {', '.join(missing)}: pip install -e '.[test,tune]'")
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    folder = tmp_path_factory.mktemp("notebook")
    # paths of sockets must be short
    with tempfile.TemporaryDirectory(prefix="nb") as short, pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(Path(short) / name))
        patch.setenv("PYTHONPATH", str(ROOT))
        kernel = AsyncKernelManager(
            kernel_name="python3", transport="ipc", ip=str(Path(short) / "socket")
        )
        client = NotebookClient(
            notebook, km=kernel, timeout=CELL_S, resources={"metadata": {"path": str(folder)}}
        )
        client.execute()
        yield notebook, folder


def _without(missing: str) -> None:
    if os.environ.get("TOCSIN_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(f"TOCSIN_TEST_REQUIRE_SERVICES=1, but {missing}", pytrace=False)
    pytest.skip(missing)


def outputs(executed: tuple[Any, Path]) -> dict[str, str]:
    """Return what each cell of code printed or came to, as text."""
    found = {}
    for cell in codes(executed[0]):
        texts = [
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in cell["outputs"]
        ]
        found[cell["id"]] = "".join(texts)
    return found


def test_every_cell_runs_and_shows_something(executed: tuple[Any, Path]) -> None:
    for cell in codes(executed[0]):
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert kinds <= {"stream", "execute_result"}, cell["id"]
        complaints = [o["text"] for o in cell["outputs"] if o.get("name") == "stderr"]
        complaints = [text for text in complaints if COMPILING not in text]
        assert not complaints, (cell["id"], complaints)
        assert cell["outputs"] or cell["id"] == "imports", cell["id"]


def test_it_tells_what_the_readme_tells_of_the_day(executed: tuple[Any, Path]) -> None:
    shown = outputs(executed)
    page = (ROOT / "replay_data/README.md").read_text(encoding="utf-8")
    (found, of, false) = re.findall(r"\| (\d+) of (\d+) \| 10 min 2 s \| (\d+) \|", page)[0]
    (row,) = [line for line in shown["score"].splitlines() if line.startswith("│ blue")]
    cells = [cell.strip() for cell in row.strip("│").split("┆")]
    assert cells[1:3] == [found, str(int(of) - int(found))]
    assert float(cells[3]) == 602 and cells[-1] == false
    golden = (ROOT / "tests/golden/day.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"{len(golden)} alerts" in shown["run"]
    assert "well-409" in shown["missed"] and "well-409-ch4" in shown["trace"]


def test_what_it_writes_is_there_and_whole(executed: tuple[Any, Path]) -> None:
    _, folder = executed
    assert [path.name for path in folder.iterdir()] == ["tuned_day"]
    out = folder / "tuned_day"
    assert {path.name for path in out.iterdir()} == {
        "day.catalog", "rules.toml", "diff.html", "report.html", "study", "study.html",
    }  # fmt: skip
    chosen, given = (
        tocsin.rules(out / "rules.toml"),
        tocsin.rules(ROOT / "replay_data/day/rules.toml"),
    )
    assert chosen.digest != given.digest
    for name in ("diff.html", "report.html", "study.html"):
        assert (out / name).read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_tuning_finds_more_than_the_given_rules_and_the_diff_says_so(
    executed: tuple[Any, Path],
) -> None:
    shown = outputs(executed)
    assert "missed_blue 1 → 0" in shown["changes"]
    lost = [line for line in shown["verdicts"].splitlines() if "┆ lost" in line]
    found = [line for line in shown["verdicts"].splitlines() if "┆ found" in line]
    assert not lost and len(found) == 1 and "well-409" in found[0]
    assert "What would have prevented it" in shown["explained"]
