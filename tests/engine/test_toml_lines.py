"""The scanner finds the line of every key, held against texts whose values are their own lines."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.toml_lines import Path, key_lines


def scalars(node: Any, path: Path = ()) -> dict[Path, Any]:
    """Return every value of a document that is no table and no array, by its path."""
    if isinstance(node, dict):
        parts = [scalars(value, (*path, key)) for key, value in node.items()]
    elif isinstance(node, list):
        parts = [scalars(value, (*path, index)) for index, value in enumerate(node)]
    else:
        return {path: node}
    return {key: value for part in parts for key, value in part.items()}


def assert_lines_are_the_values(text: str) -> None:
    """Hold every scalar, a number that says its own line, against the scanner."""
    lines = key_lines(text)
    for path, value in scalars(tomllib.loads(text)).items():
        assert lines[path] == int(str(value).split("@")[-1]), f"{path} of\n{text}"


def test_keys_dotted_and_quoted_have_their_line() -> None:
    assert_lines_are_the_values("""a = 1
b.c = 2
"d e".'f.g'.h-1 = 3
 b . i = 4   # comment = 9
"q\\"\\u0041" = 5
""")


def test_tables_and_arrays_of_tables_have_their_line() -> None:
    text = """top = 1
[a]
x = 3
[a.b]  # [not.a.table]
x = 5
[[c]]
x = 7
[c.d]
x = 9
[[c.e]]
x = 11
[[c.e]]
x = 13
[[c]]
[[c.e]]
x = 16
[ "a" . 'z' ]
x = 18
"""
    assert_lines_are_the_values(text)
    lines = key_lines(text)
    assert lines[("a",)] == 2
    assert lines[("a", "b")] == 4
    assert (lines[("c",)], lines[("c", 0)], lines[("c", 1)]) == (6, 6, 14)
    assert (lines[("c", 0, "e", 1)], lines[("c", 1, "e", 0)]) == (12, 15)


def test_inline_tables_and_arrays_over_several_lines_have_their_line() -> None:
    assert_lines_are_the_values("""a = { x = 1, y.z = 1, "w" = [1, { v = 1 }] }
b = [
  3, # 9, 9
  4,

  [6, 6], { x = 6 },
  { x = 7, y = [
     8 ] }
]
c = 10
d = [ ]
e = { }
f = 13""")


def test_strings_of_every_kind_are_passed_over() -> None:
    assert_lines_are_the_values('''a = "x = 9 # @1"
b = 'C:\\ # @2'
c = """
# not a comment "" \\" \\
[no.table] @3"""
d = """a "quoted" word""\\"" @6"""
e = \'\'\'
it''s = 9
\\ @7\'\'\'
f = 10
g = """ends in two quotes @11"""
h = 12
''')


def test_a_string_that_ends_in_quotes_of_its_own_ends_where_toml_says() -> None:
    for body in ('"""x"""""', '"""x""""', "'''x'''''", "'''x''''", '""""x"""', '"""\\""""'):
        lines = key_lines(f"a = {body}\nb = 2\n")
        assert tomllib.loads(f"a = {body}\nb = 2\n")["b"] == 2
        assert lines[("b",)] == 2


def test_windows_line_ends_count_once() -> None:
    assert_lines_are_the_values("a = 1\r\n[t]\r\nb = 3\r\nc = [\r\n 5,\r\n 6]\r\n")


def test_a_table_that_is_only_implied_has_the_line_of_its_first_key() -> None:
    lines = key_lines("\n[a.b.c]\nx = 3\n[a]\ny = 5\n")
    assert lines[("a", "b")] == 2
    assert lines[("a",)] == 4


def test_dates_floats_and_booleans_are_passed_over() -> None:
    text = "a = 2025-07-30 00:00:00+08:00 # x\nb = [1e5, -inf, true, 07:32:00]\nc = 0x_not\n"
    lines = key_lines(text.replace("0x_not", "0xff"))
    assert lines[("c",)] == 3
    assert lines[("b", 3)] == 2


KEYS = st.sampled_from(["a", "b", "c-1", '"d.e"', "'f #'", '"\\u0067"'])


class Writer:
    """Writes a random document in which every value is the number of its own line."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.used: set[tuple[str, ...]] = set()

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def blank(self) -> None:
        self.text += self.draw(st.sampled_from(["", " ", "\n", "# [c] = { 9\n", "\n\n\t"]))

    def value(self, depth: int) -> None:
        kind = self.draw(st.integers(0, 6 if depth < 3 else 3))
        if kind <= 1:
            self.text += str(self.line)
        elif kind == 2:
            self.text += f'"] }} # \\" = @{self.line}"'
        elif kind == 3:
            # the value stands where the string begins
            self.text += f"'''\n[x]\n \"' @{self.line}'''"
        elif kind <= 5:
            self.text += "["
            for _ in range(self.draw(st.integers(0, 3))):
                self.blank()
                self.value(depth + 1)
                self.text += ","
            self.blank()
            self.text += "]"
        else:
            self.text += "{"
            for index in range(self.draw(st.integers(0, 3))):
                self.text += f"{', ' if index else ''}k{index}.x = "
                self.value(depth + 1)
            self.text += "}"

    def document(self) -> str:
        table: tuple[str, ...] = ()
        for _ in range(self.draw(st.integers(0, 12))):
            self.blank()
            if not self.text.endswith("\n") and self.text:
                self.text += "\n"
            kind = self.draw(st.integers(0, 4))
            key = self.draw(KEYS)
            if kind == 0 and (key,) not in self.used:
                table = (key,)
                self.used.add(table)
                self.text += f"[ {key} ]\n"
            elif kind == 1:
                table = (f"list{self.draw(st.integers(0, 1))}", str(self.line))
                self.text += f"[[{table[0]}]]\n"
            elif (*table, key) not in self.used:
                self.used.add((*table, key))
                self.text += f"{key} = "
                self.value(0)
                self.text += "\n"
        return self.text


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Draw a document in which every value is the number of its own line."""
    return Writer(draw).document()


@given(documents())
def test_any_document_has_every_value_on_the_line_that_it_says(text: str) -> None:
    assert_lines_are_the_values(text)


@given(documents())
def test_the_scanner_finds_the_paths_of_the_document_and_no_others(text: str) -> None:
    document = tomllib.loads(text)
    paths = set()
    for path in scalars(document):
        paths |= {path[:length] for length in range(1, len(path) + 1)}

    def empty(node: Any, path: Path = ()) -> None:
        if isinstance(node, dict | list):
            if path:
                paths.add(path)
            pairs = node.items() if isinstance(node, dict) else enumerate(node)
            for key, value in pairs:
                empty(value, (*path, key))

    empty(document)
    assert set(key_lines(text)) == paths
