"""Reports of studies in a real browser: drawn whole, fitting, inert, usable, printable."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.analysis.reports import StudyReport, study_report_of, write_report
from engine.analysis.tuning.study import Study
from tests.analysis.browser import Open, browser, opening
from tests.analysis.studied import hostile, many, studied

FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
SHAPES = """
() => [...document.querySelectorAll('.chart')].map(
  (e) => [e.id, e.querySelectorAll('svg path').length,
          e.querySelector('svg').getBoundingClientRect().width, e.clientWidth])
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for all tests of this file."""
    with browser() as launched:
        yield launched


@pytest.fixture
def opens(chromium: Any) -> Iterator[Open]:
    """What opens a page, until the end of the test."""
    with opening(chromium) as open_file:
        yield open_file


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Return the small city's study."""
    return studied(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of its report."""
    return written(study.folder, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def wide(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the report of 10,000 settings."""
    folder = tmp_path_factory.mktemp("wide")
    return written(many(study, folder / "study", 10_000), folder)


def written(folder: Path | None, to: Path) -> Path:
    """Write the report of a folder."""
    assert folder is not None
    report: StudyReport = study_report_of(folder)
    write_report(to / "report.html", report)
    return to / "report.html"


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_study_is_drawn_whole_and_fits(opens: Open, page: Path, width: int, scheme: str) -> None:
    opened = opens(page, width=width, scheme=scheme)
    opened.show_all()
    shapes = opened.page.evaluate(SHAPES)
    assert [name for name, *_ in shapes] == ["tradeoff", *(f"multiple-{i}" for i in range(3))]
    for name, n, drawn, room in shapes:
        assert n > 8, f"{name} is empty"
        assert abs(drawn - room) <= 1, f"{name} is {drawn} px wide in {room}"
    assert opened.page.evaluate(FITS)
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) > 200) == (scheme == "light")
    assert opened.complaints == [] and opened.requests == []


def test_the_axes_and_the_figure_can_be_picked(opens: Open, page: Path) -> None:
    opened = opens(page)
    opened.show_all()
    axis = "[...document.querySelectorAll('#tradeoff svg text')].map(e => e.textContent)"
    assert any("incidents missed, blue" in text for text in opened.page.evaluate(axis))
    opened.page.select_option("#axis-x", "episodes")
    assert any("episodes (less" in text for text in opened.page.evaluate(axis))
    before = opened.page.inner_text("#multiple-0-title")
    opened.page.select_option("#figure", "median_duration_s")
    assert opened.page.inner_text("#multiple-0-title") != before
    opened.page.check("#front-only")
    assert opened.complaints == []


def test_a_pointer_tells_the_parameters_and_a_click_picks(
    opens: Open, page: Path, study: Study
) -> None:
    opened = opens(page)
    opened.show_all()
    assert study.chosen is not None
    assert opened.page.inner_text("#picked-title").startswith(f"Setting {study.chosen.setting}: ")
    opened.page.locator("#tradeoff").scroll_into_view_if_needed()
    # where the given rules are drawn: the ring is put there by picking them in the table
    opened.page.evaluate("study.pick(study.of.given)")
    assert opened.page.inner_text("#picked-title").startswith("Setting 0: given rules")
    ring = opened.page.locator("#tradeoff-around > .ring").bounding_box()
    opened.page.evaluate("study.pick(study.of.best)")
    assert ring is not None
    x, y = ring["x"] + ring["width"] / 2, ring["y"] + ring["height"] / 2
    opened.page.mouse.move(x, y)
    tip = opened.page.inner_text("#tradeoff-around > .floating")
    assert "Setting 0" in tip and "alarms" in tip and str(study.figures(0)["alarms"]) in tip
    opened.page.mouse.click(x, y)
    assert opened.page.inner_text("#picked-title").startswith("Setting 0: given rules")
    assert opened.complaints == []


def test_arrow_keys_pick_settings_of_the_front(opens: Open, page: Path, study: Study) -> None:
    opened = opens(page)
    opened.show_all()
    opened.page.focus("#tradeoff-around")
    opened.page.keyboard.press("Home")
    seen = {opened.page.inner_text("#picked-title")}
    for _ in range(len(study.trials)):
        opened.page.keyboard.press("ArrowRight")
        seen.add(opened.page.inner_text("#picked-title"))
    numbers = {int(title.split()[1].rstrip(":")) for title in seen}
    marks = study.standing.marks()
    assert len(numbers) >= 2
    assert all(marks["front"][row] or row == 0 for row in numbers)
    opened.page.keyboard.press("Home")
    assert opened.page.is_visible("#tradeoff-around > .floating")
    assert opened.complaints == []


def test_the_table_sorts_filters_and_turns_its_pages(
    opens: Open, wide: Path, tmp_path: Path
) -> None:
    opened = opens(wide)
    page = opened.page
    rows = "#rows tr"
    assert page.locator(rows).count() == 50
    assert page.inner_text("#count") == "1–50 of 10,000 settings"
    assert "#3" in page.locator(rows).first.inner_text(), "the chosen one is first"
    page.click("#on")
    assert page.inner_text("#count") == "51–100 of 10,000 settings"
    alarms = "th[data-key='f:alarms'] button"
    page.click(alarms)
    assert page.get_attribute("th[data-key='f:alarms']", "aria-sort") == "ascending"
    place = page.evaluate("""[...document.querySelectorAll('#heads th')]
        .findIndex(e => e.dataset.key === 'f:alarms')""")
    column = f"[...document.querySelectorAll('#rows tr')].map(e => e.cells[{place}].textContent)"
    shown = [float(text.replace(",", "")) for text in page.evaluate(column)]
    assert shown == sorted(shown)
    page.click(alarms)
    down = [float(text.replace(",", "")) for text in page.evaluate(column)]
    assert down == sorted(down, reverse=True) and down[0] > shown[0]
    page.fill("#where", "alarms <= 780, quantity_3.limits > 50")
    count = page.inner_text("#count")
    assert "filtered of 10,000" in count and page.inner_text("#where-fault") == ""
    assert all(float(text.replace(",", "")) <= 780 for text in page.evaluate(column))
    page.fill("#where", "alarms <= 780, nothing < 3, quantity_1 < 2, junk")
    fault = page.inner_text("#where-fault")
    assert "nothing is called nothing" in fault and "does not read NAME <= NUMBER" in fault
    assert "quantity_1 may be profiles.quantity_1.limits.high.blue, " in fault
    page.fill("#where", "alarms < 0")
    assert page.inner_text("#none") == "No setting matches the filter."
    page.click("#clear")
    page.select_option("#kind", "refused")
    assert all("must ascend" in text for text in page.locator(rows).all_inner_texts())
    page.select_option("#kind", "front")
    with page.expect_download() as saved:
        page.click("#save")
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0].startswith("setting,marks,profiles.quantity_0") and lines[0].endswith("refused")
    assert all("front" in line for line in lines[1:]) and len(lines) > 2
    assert opened.complaints == []


def test_figures_of_another_level_can_be_shown(opens: Open, page: Path) -> None:
    opened = opens(page)
    assert opened.page.locator("th[data-key='f:found_red']").count() == 0
    opened.page.select_option("#level", "red")
    assert opened.page.locator("th[data-key='f:found_red']").count() == 1
    opened.page.check("#every")
    heads = opened.page.locator("#heads th").count()
    assert heads > 60
    assert opened.page.evaluate(FITS)


def test_a_setting_of_the_table_is_picked_in_the_chart(opens: Open, page: Path) -> None:
    opened = opens(page)
    opened.page.locator("#rows [data-pick]").nth(4).click()
    named = opened.page.locator("#rows .is-picked [data-pick]").inner_text()
    assert opened.page.inner_text("#picked-title").startswith(f"Setting {named[1:]}")


def test_ten_thousand_settings_are_soon_drawn(opens: Open, wide: Path) -> None:
    began = time.monotonic()
    opened = opens(wide)
    opened.until("document.querySelectorAll('#rows tr').length === 50")
    opened.page.locator("#tradeoff").scroll_into_view_if_needed()
    opened.until("document.querySelector('#tradeoff svg') !== null")
    took = time.monotonic() - began
    assert took < 15, f"{took:.1f} s"
    opened.show_all()
    assert opened.page.evaluate("document.querySelectorAll('*').length") < 6_000
    assert opened.page.evaluate(FITS) and opened.complaints == []


def test_the_chosen_rules_can_be_saved(opens: Open, page: Path, study: Study) -> None:
    opened = opens(page)
    with opened.page.expect_download() as saved:
        opened.page.click("#save-rules")
    assert study.chosen is not None
    assert Path(saved.value.path()).read_text() == study.chosen.text


def test_the_front_can_be_read_as_a_table(opens: Open, page: Path, study: Study) -> None:
    opened = opens(page)
    opened.page.click("details[data-of=tradeoff] summary")
    rows = opened.page.locator("details[data-of=tradeoff] tbody tr")
    front = study.standing.marks()["front"]
    assert rows.count() == int(front.sum()) + (not front[0])


def test_a_printed_study_has_every_chart_in_light_colours(opens: Open, page: Path) -> None:
    opened = opens(page, scheme="dark")
    opened.page.evaluate("""() => {
      const all = (what) => [...document.querySelectorAll(what)];
      addEventListener('beforeprint', () => { window.printed = {
        theme: document.documentElement.dataset.theme,
        widths: all('.chart').map(e => e.querySelector('svg').clientWidth),
      }; });
    }""")
    printed = opened.page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 2
    seen = opened.page.evaluate("window.printed")
    assert seen["theme"] == "light" and seen["widths"] == [690, 325, 325, 325]
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert opened.complaints == [] and opened.requests == []


@pytest.mark.parametrize("file", ["page", "wide"])
def test_nothing_overflows_the_paper(
    opens: Open, file: str, request: pytest.FixtureRequest
) -> None:
    opened = opens(request.getfixturevalue(file), width=703)
    opened.page.emulate_media(media="print")
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate(FITS)


def test_names_that_would_be_code_stay_names(opens: Open, tmp_path: Path) -> None:
    hostile(tmp_path)
    opened = opens(written(tmp_path / "study", tmp_path))
    opened.show_all()
    page = opened.page
    for summary in page.locator("summary").all():
        summary.click()
    for box in page.locator(".chart").all():
        box.scroll_into_view_if_needed()
        edges = box.bounding_box()
        assert edges is not None
        for across in range(12):
            for up in range(6):
                page.mouse.move(
                    edges["x"] + edges["width"] * (across + 0.5) / 12,
                    edges["y"] + edges["height"] * (up + 0.5) / 6,
                )
    for row in page.locator("#rows [data-pick]").all()[:4]:
        row.click()
    page.fill("#where", "<img src=x onerror=window.pwned=1> < 3, __proto__ < 100")
    page.check("#every")
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
    assert page.locator("#rows tr").count() > 0
    assert page.evaluate(FITS)
    assert opened.complaints == [] and opened.requests == []


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize(
    "options", [{"truth": False}, {"requirements": ["alarms <= 0"]}, {"method": "random", "n": 2}]
)
def test_studies_with_little_in_them_open_without_complaint(
    opens: Open, tmp_path: Path, width: int, options: dict[str, Any]
) -> None:
    made = studied(tmp_path, **options)
    opened = opens(written(made.folder, tmp_path), width=width)
    opened.show_all()
    assert opened.page.locator("#rows tr").count() > 0
    assert opened.page.evaluate(FITS)
    assert opened.complaints == [] and opened.requests == []
