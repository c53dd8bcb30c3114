"""The report by mouse and keyboard: tables, matrix and gallery, with names that attack the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import Results, summarise, write_report
from made_up import made_up_results

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]

EVIL = '</script><img src=x onerror="window.hacked=1"><b>'
CLASSES = [EVIL, *(f"n{i:08d}-breed_{chr(97 + i)}" for i in range(15))]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("photos")
    name = "<b>&amp;'"
    return made_up_results(folder, CLASSES, boosts=(2.5, 2.4, 0.1), file_prefix=name)


@pytest.fixture(scope="module")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary = summarise([results], computed_attributes=False)
    return write_report(summary, tmp_path_factory.mktemp("out"))


@pytest.fixture
def window(browser: Any, page: Path) -> Any:
    metrics = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    return browser


@pytest.fixture
def best(results: Results) -> Any:
    return max(results, key=lambda result: result.metrics["top1"])


def texts(window: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    return window.execute_script(script, selector)


def shown(window: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#class-table tbody tr')].filter(r => !r.hidden)"
    return window.execute_script(script + ".map(r => r.cells[0].textContent)")


def press(window: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(window).send_keys(*keys).perform()


def fill(window: Any, selector: str, text: str) -> None:
    script = (
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind))"
    )
    window.execute_script(script, selector, text)


def pair_of(best: Any) -> tuple[int, int, int]:
    """The most frequent confusion: true code, predicted code, count."""
    table = best.confusion()
    np.fill_diagonal(table, 0)
    truth, predicted = np.unravel_index(table.argmax(), table.shape)
    return int(truth), int(predicted), int(table.max())


def test_the_worst_ten_classes_are_shown_first_and_the_rest_on_demand(window: Any) -> None:
    first = shown(window)
    assert len(first) == 10
    window.execute_script("document.querySelector('.controls[data-for] button').click()")
    everything = shown(window)
    assert everything[:10] == first
    assert len(everything) == 16
    window.execute_script("document.querySelectorAll('#class-table thead button')[0].click()")
    assert shown(window) == sorted(everything, key=str.casefold)


def test_a_search_finds_classes_by_both_names(window: Any) -> None:
    for word, expected in (("Breed C", ["Breed c"]), ("n00000003", ["Breed d"]), ("nothing", [])):
        fill(window, ".controls[data-for] input", word)
        assert shown(window) == expected
    assert "0 of 16 classes shown" in texts(window, ".controls[data-for] [role=status]")
    fill(window, ".controls[data-for] input", "")
    assert len(shown(window)) == 10


def test_a_sorted_table_still_shows_ten(window: Any) -> None:
    window.execute_script("document.querySelectorAll('#class-table thead button')[4].click()")
    assert len(shown(window)) == 10


def test_names_of_classes_and_files_stay_text(window: Any) -> None:
    fill(window, "#gallery-search", "breed")
    assert window.execute_script("return window.hacked") is None
    assert window.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert all("<b>&amp;'" in name for name in texts(window, "#gallery-tiles .file"))


def test_no_other_script_runs_and_nothing_is_fetched(window: Any) -> None:
    window.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 2';"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'https://example.invalid/x.png';"
        "document.body.append(i)"
    )
    assert window.execute_script("return window.hacked") is None
    messages = " ".join(entry["message"] for entry in window.get_log("browser"))
    assert "script-src" in messages
    assert "img-src" in messages


def test_a_click_on_a_cell_shows_its_photos_and_the_pointer_its_names(
    window: Any, best: Any
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    truth, predicted, count = pair_of(best)
    x, y = window.execute_script(
        "const place = code => page.order.indexOf(code);"
        "const frame = document.querySelector('#matrix .frame');"
        "const [left, top] = ['x', 'y'].map(k => Number(frame.getAttribute(k)));"
        "const cell = Number(frame.getAttribute('width')) / page.order.length;"
        "const [y, x] = [0, 1].map(i => (place(arguments[i]) + .5) * cell);"
        "return [left + x, top + y]",
        truth, predicted,
    )  # fmt: skip
    svg = window.find_element(By.CSS_SELECTOR, "#matrix svg")
    size = svg.size
    chain = ActionChains(window).scroll_to_element(svg)
    offset = (round(x - size["width"] / 2), round(y - size["height"] / 2))
    chain.move_to_element_with_offset(svg, *offset).perform()
    words = f": {count} of 10 images predicted as "
    assert words in texts(window, "#matrix-tip")[0]
    chain.click().perform()
    assert words in texts(window, "#matrix-status")[0]
    assert len(texts(window, "#matrix-photos .tile")) == count


def test_the_matrix_is_used_by_keyboard(window: Any, best: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    window.execute_script("document.getElementById('matrix').focus()")
    press(window, Keys.PAGE_DOWN)
    place = texts(window, "#matrix-status")[0]
    assert "predicted as" in place
    press(window, Keys.ENTER)
    assert texts(window, "#matrix-photos .tile")
    press(window, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert texts(window, "#matrix-status")[0] == place
    press(window, Keys.PAGE_DOWN)
    assert texts(window, "#matrix-status")[0] != place
    press(window, Keys.PAGE_UP)
    assert texts(window, "#matrix-status")[0] == place


def test_the_gallery_filters_orders_and_continues(window: Any, best: Any) -> None:
    total = int((best.prediction != best.truth).sum())
    assert total > 24
    assert texts(window, "#gallery-status") == [f"24 of {total} errors shown"]
    window.execute_script("document.getElementById('gallery-more').click()")
    assert len(texts(window, "#gallery-tiles .tile")) == min(48, total)
    truth, predicted, count = pair_of(best)
    fill(window, "#gallery-truth", str(truth))
    fill(window, "#gallery-predicted", str(predicted))
    assert len(texts(window, "#gallery-tiles .tile")) == count
    window.execute_script("document.getElementById('gallery-reset').click()")
    fill(window, "#gallery-order", "name")
    names = texts(window, "#gallery-tiles .file")
    assert names == sorted(names)
    fill(window, "#gallery-search", names[3])
    assert texts(window, "#gallery-tiles .file") == [names[3]]


def test_a_number_of_errors_leads_to_their_photos(window: Any, best: Any) -> None:
    truth, _, _ = pair_of(best)
    window.execute_script(
        "document.querySelector(`#class-table a[data-truth='${arguments[0]}']`).click()", truth
    )
    errors = int(((best.truth == truth) & (best.prediction != truth)).sum())
    assert len(texts(window, "#gallery-tiles .tile")) == errors
    assert window.execute_script("return document.activeElement.id") == "gallery"


def test_the_main_table_has_all_its_columns_in_sight_at_1280(window: Any) -> None:
    right = window.execute_script(
        "return Math.max(...[...document.querySelectorAll('#contender-table thead th')]"
        ".map(cell => cell.getBoundingClientRect().right))"
    )
    assert right <= 1280


def test_a_phone_scrolls_tables_and_matrix_in_their_own_boxes(window: Any) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    window.refresh()
    assert window.execute_script("return document.documentElement.scrollWidth") == 390
    wide = (
        "return [...document.querySelectorAll('.scroll')].some(b => b.scrollWidth > b.clientWidth)"
    )
    assert window.execute_script(wide)


def test_every_control_has_a_name(window: Any) -> None:
    unnamed = window.execute_script(
        "return [...document.querySelectorAll('button, input, select')].filter(e =>"
        "!(e.textContent.trim() && e.tagName === 'BUTTON') && !(e.labels && e.labels.length))"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
