"""Report and comparison in a browser: a wide screen and a phone, light and dark, judged by axe-core. Skipped where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT
from invented import hostile_comparison, hostile_facts

from foldertune.evaluation.comparison_page import render_comparison
from foldertune.evaluation.report import render_report

sys.path.insert(0, str(PROJECT))
import start

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: it is in the group dev")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
# Nothing of these is asked of the network by the page; the browser would for itself.
QUIET = [
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = start.find_browser(os.environ)
    if found is None:
        pytest.skip(f"there is no browser: {start.GET_BROWSER}")
    unconfined = (
        ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    )  # Chromium refuses to confine itself for root
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=[*QUIET, *unconfined])
        yield opened
        opened.close()


REPORTS = ["a small run", "hostile names"]
reports_only = pytest.mark.parametrize("document", REPORTS, indirect=True)


@pytest.fixture(scope="module", params=[*REPORTS, "comparison"])
def document(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "a small run":
        run: Path = request.getfixturevalue("small_run")
        return run / "report.html"
    path = tmp_path_factory.mktemp("made") / "page.html"
    made = (
        render_report(hostile_facts()) if request.param == "hostile names" else render_comparison(hostile_comparison())
    )
    path.write_text(made, "utf-8")
    return path


class Opened:
    """A page, with what it asked for and what its console said."""

    def __init__(self, context: Any, path: Path) -> None:
        self.page = context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(path.as_uri())


@pytest.fixture(params=SCREENS, ids=lambda screen: f"{screen[0]}-{screen[1]}")
def opened(browser: Any, document: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    yield Opened(context, document)
    context.close()


def test_pages_in_browser_asks_for_nothing_and_its_console_is_silent(opened: Opened, document: Path) -> None:
    assert {url for url in opened.asked if not url.startswith("data:")} == {document.as_uri()}
    assert opened.said == []


def test_pages_in_browser_never_scrolls_sideways(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    wide, screen = opened.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= screen


def test_pages_in_browser_axe_finds_no_violation(opened: Opened) -> None:
    opened.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = axe_api.Axe().run(opened.page)
    assert found.violations_count == 0, found.generate_report()
    assert found.response["passes"]  # it did look


@reports_only
def test_pages_in_browser_cells_of_the_matrix_open_their_pictures(opened: Opened, document: Path) -> None:
    cells = opened.page.locator(".matrix td a")
    if not document.with_name("run.json").exists():  # a real run may have answered everything right
        assert cells.count() > 0
    for number in range(cells.count()):
        cells.nth(number).click()
        place = opened.page.locator(":target")
        assert place.count() == 1
        assert place.locator("img").count() > 0
        top = place.bounding_box()["y"]
        assert 0 <= top < 844


@reports_only
def test_pages_in_browser_rows_are_files_of_the_run(opened: Opened, document: Path) -> None:
    files = opened.page.eval_on_selector_all(".rows a", "links => links.map(link => link.getAttribute('href'))")
    assert files
    if document.with_name("run.json").exists():
        assert all((document.parent / file).is_file() for file in files)
