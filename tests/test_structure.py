"""The shape of the repository: who may import whom, and what every module must be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "engine", "topologies")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--config", str(config), "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_every_import_contract_is_kept() -> None:
    done = lint(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_would_notice_a_wrong_import(tmp_path: Path) -> None:
    # the other way round, the order of the layers is broken: so the check does look
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    right = 'layers = ["topologies", "engine", "kernels"]'
    assert right in text
    config = tmp_path / "pyproject.toml"
    config.write_text(text.replace(right, 'layers = ["kernels", "engine", "topologies"]'))
    assert lint(config).returncode == 1


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_what_it_is_for_and_stays_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    # about 500 lines is the aim; well beyond that a file is two things
    assert text.count("\n") <= 600, "split it: one file, one thing"


def test_the_readme_of_live_workers_lists_every_file_once() -> None:
    folder = ROOT / "topologies"
    text = (folder / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    listed = re.findall(r"`(\w+\.(?:py|lua))`", "".join(re.findall(r"^\|[^|]+", text, re.M)))
    there = {path.name for path in folder.iterdir() if path.suffix in (".py", ".lua")}
    assert sorted(listed) == sorted(there - {"__init__.py"})


def test_wheel_and_distribution_name_the_same_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(PACKAGES) <= set(packages)
    assert project["project"]["scripts"] == {"tocsin": "topologies.cli:main"}


def test_replay_needs_neither_kafka_nor_redis() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = " ".join(project["dependencies"])
    for name in ("faust", "kafka", "redis"):
        assert name not in required
        assert name in " ".join(project["optional-dependencies"]["live"])
