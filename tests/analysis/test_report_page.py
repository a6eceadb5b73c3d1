"""Reports in a real browser: drawn whole, fitting, inert, usable, printable, asking for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.analysis.reports import Report, report_of, write_report
from tests.analysis.browser import Open, browser, opening
from tests.analysis.reported import INCIDENTS, busy, hostile, small

FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
SHAPES = """
() => [...document.querySelectorAll('.chart, .plot')].map(
  (e) => [e.id || 'strip ' + e.dataset.strip, e.querySelectorAll('svg path').length,
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
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Return the small city's report, against a truth."""
    past, of = small(tmp_path_factory.mktemp("small"))
    return report_of(of, past, truth=INCIDENTS)


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return its file."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, report)
    return path


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a report of 600 episodes."""
    folder = tmp_path_factory.mktemp("month")
    past, of = busy(folder, 30, 20)
    path = folder / "report.html"
    write_report(path, report_of(of, past, n_strips=3))
    return path


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_draws_everything_and_fits(
    opens: Open, page: Path, report: Report, width: int, scheme: str
) -> None:
    opened = opens(page, width=width, scheme=scheme)
    opened.show_all()
    shapes = opened.page.evaluate(SHAPES)
    assert len(shapes) == 3 + len(report.facts.chosen)
    for name, n, drawn, room in shapes:
        assert n > (2 if name == "calendar" else 10), f"{name} is empty"
        assert abs(drawn - room) <= 1, f"{name} is {drawn} px wide in {room}"
    assert opened.page.evaluate(FITS)
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", background)[0])
    assert (red > 200) == (scheme == "light")
    assert opened.complaints == [] and opened.requests == []


def test_the_colours_change_with_a_click_and_the_charts_with_them(opens: Open, page: Path) -> None:
    opened = opens(page)
    opened.show_all()
    text = "document.querySelector('#over-time svg text').getAttribute('fill')"
    before = opened.page.evaluate(text)
    opened.page.click("#theme")
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert opened.page.evaluate(text) != before
    assert opened.page.inner_text("#theme") == "Light"
    assert opened.complaints == []


def test_the_page_follows_the_system_until_somebody_chooses(opens: Open, page: Path) -> None:
    opened = opens(page)
    theme = "document.documentElement.dataset.theme"
    opened.page.emulate_media(color_scheme="dark")
    opened.until(f"{theme} === 'dark'")
    opened.page.click("#theme")
    opened.page.emulate_media(color_scheme="light")
    opened.page.emulate_media(color_scheme="dark")
    assert opened.page.evaluate(theme) == "light"


def test_a_printed_report_has_pages_with_every_chart_in_light_colours(
    opens: Open, page: Path, report: Report
) -> None:
    opened = opens(page, scheme="dark")
    opened.page.evaluate("""() => {
      const all = (what) => [...document.querySelectorAll(what)];
      addEventListener('beforeprint', () => { window.printed = {
        theme: document.documentElement.dataset.theme,
        drawn: all('.chart, .plot').filter(e => e.querySelector('svg')).length,
        wide: Math.max(...all('.chart svg, .plot svg').map(e => e.clientWidth)),
      }; });
    }""")
    printed = opened.page.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 3
    seen = opened.page.evaluate("window.printed")
    assert seen["theme"] == "light" and seen["drawn"] == 3 + len(report.facts.chosen)
    assert seen["wide"] <= 703  # A4 less two margins of 12 mm, at 96 dpi
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert opened.complaints == [] and opened.requests == []


def test_nothing_overflows_the_paper(opens: Open, page: Path) -> None:
    opened = opens(page, width=703)
    opened.page.emulate_media(media="print")
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate(FITS)


def test_the_table_filters_sorts_and_turns_its_pages(opens: Open, month: Path) -> None:
    opened = opens(month)
    page = opened.page
    rows = "#rows tr"
    assert page.locator(rows).count() == 50
    assert page.inner_text("#count") == "1–50 of 600 episodes"
    page.click("#on")
    assert page.inner_text("#count") == "51–100 of 600 episodes"
    page.fill("#search", "WELL-00007")
    assert page.inner_text("#count") == "1–20 of 20 episodes (filtered of 600)"
    assert all("well-00007" in text for text in page.locator(rows).all_inner_texts())
    page.select_option("#least", "4")
    assert 0 < page.locator(rows).count() < 20
    assert all("red" in text for text in page.locator(rows).all_inner_texts())
    page.fill("#search", "no such source")
    assert page.locator(rows).count() == 0
    assert page.inner_text("#none") == "No episode matches the filter."
    page.click("#clear")
    page.locator("th[data-key=start] button").focus()
    page.keyboard.press("Enter")
    assert page.get_attribute("th[data-key=start]", "aria-sort") == "ascending"
    began = page.locator("#rows tr td:first-child").all_inner_texts()
    assert began == sorted(began)
    page.keyboard.press("Enter")
    began = page.locator("#rows tr td:first-child").all_inner_texts()
    assert began == sorted(began, reverse=True)
    assert opened.complaints == []


def test_a_busy_source_leads_to_its_episodes(opens: Open, month: Path) -> None:
    opened = opens(month)
    first = opened.page.locator("[data-find]").first
    name = first.inner_text()
    first.click()
    assert opened.page.input_value("#search") == name
    assert opened.page.inner_text("#count").startswith("1–20 of 20")


def test_the_episodes_shown_can_be_saved(opens: Open, month: Path) -> None:
    opened = opens(month)
    opened.page.fill("#search", "well-00003")
    with opened.page.expect_download() as saved:
        opened.page.click("#save")
    lines = Path(saved.value.path()).read_text().splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("start,source,name,peak,lasted_s")
    assert all("well-00003" in line for line in lines[1:])
    assert opened.requests == [] or all(each.startswith("blob:") for each in opened.requests)


def test_a_chart_can_be_read_as_a_table(opens: Open, page: Path, report: Report) -> None:
    opened = opens(page)
    opened.page.click("details[data-of=over-time] summary")
    rows = opened.page.locator("details[data-of=over-time] tbody tr").all_inner_texts()
    assert sum(int(row.split()[-1]) for row in rows) == report.facts.figures.alarms


def test_a_pointer_on_a_strip_tells_what_stood(opens: Open, page: Path) -> None:
    opened = opens(page)
    plot = opened.page.locator(".plot").first
    plot.scroll_into_view_if_needed()
    opened.until("document.querySelector('.plot svg') !== null")
    box = plot.bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    opened.page.wait_for_selector(".tip")
    assert "score" in plot.inner_text()
    assert opened.complaints == []


def test_names_that_would_be_code_stay_names(opens: Open, tmp_path: Path) -> None:
    past, of = hostile(tmp_path)
    path = tmp_path / "report.html"
    write_report(path, report_of(of, past))
    opened = opens(path)
    opened.show_all()
    page = opened.page
    for summary in page.locator("summary").all():
        summary.click()
    for name in ("#over-time", "#calendar", "#pareto", ".plot"):
        chart = page.locator(name).first
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        assert box is not None
        for part in (0.2, 0.5, 0.8):
            page.mouse.move(box["x"] + box["width"] * part, box["y"] + box["height"] / 2)
            page.wait_for_timeout(50)
    page.locator("[data-find]").first.click()
    assert page.evaluate("window.pwned") is None
    assert page.locator("img").count() == 0
    assert page.locator("#rows tr").count() > 0
    assert page.evaluate(FITS)
    assert opened.complaints == [] and opened.requests == []


@pytest.mark.parametrize("width", [1440, 390])
def test_a_report_of_nothing_opens_without_complaint(
    opens: Open, tmp_path: Path, width: int
) -> None:
    past, of = small(tmp_path, 0)
    path = tmp_path / "report.html"
    write_report(path, report_of(of, past))
    opened = opens(path, width=width)
    opened.show_all()
    assert opened.page.inner_text("#none") == "No episode: no source was raised."
    assert opened.page.evaluate(FITS)
    assert opened.complaints == [] and opened.requests == []
