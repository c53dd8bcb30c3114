"""The report in a real browser: no errors, images load, sorting works, a phone is wide enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import (
    NO_AUGMENTATION,
    CachedHead,
    FineTuned,
    evaluate,
    make_split,
    summarise,
    write_report,
)
from featcache.datasets import drawn_dogs

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import make_tiny_model

    folder = tmp_path_factory.mktemp("browser")
    dogs = drawn_dogs(4, 20, image_size=48, folder=folder / "dogs")
    cache = {"cache_dir": folder / "cache"}
    contenders = {
        "logistic": CachedHead(make_tiny_model(side=32), "logistic", **cache),
        "a contender with a rather long name": CachedHead(
            make_tiny_model(side=32), "lightgbm", **cache
        ),
        "tuned": FineTuned(
            make_tiny_model(side=32), 1.0, units=(8,), epochs=2,
            augmentation=NO_AUGMENTATION, **cache,
        ),
    }  # fmt: skip
    results = evaluate(contenders, make_split(dogs, 0.4))
    return write_report(summarise([results]), folder / "out", contenders, "python -m bench")


def test_it_opens_from_a_file_without_errors_and_every_image_loads(
    browser: Any, page: Path
) -> None:
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    browser.execute_script("for (const image of document.images) image.loading = 'eager'")
    loaded = browser.execute_script(
        "return [...document.images].map(i => i.complete && i.naturalWidth)"
    )
    assert len(loaded) > 30
    assert all(loaded)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')]"
        ".map(s => s.getBoundingClientRect().height)"
    )
    assert len(drawn) == 5
    assert min(drawn) > 60


def test_a_press_on_a_heading_sorts_down_then_up(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    read = (
        "return [...document.querySelectorAll('#contenders table tbody')][0].rows.length && "
        "[...document.querySelectorAll('#contenders table tbody')[0].rows]"
        ".map(r => Number(r.cells[9].dataset.value))"
    )
    press = "document.querySelectorAll('#contenders table thead th button')[9].click()"
    browser.execute_script(press)
    down = browser.execute_script(read)
    assert down == sorted(down, reverse=True)
    browser.execute_script(press)
    assert browser.execute_script(read) == sorted(down)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_the_screen_and_text_stands_out(
    browser: Any, page: Path, width: int, scheme: str
) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    colours = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    ink, paper = (sum(int(v) for v in c[c.index("(") + 1 : -1].split(",")[:3]) for c in colours)
    assert (ink < paper) == (scheme == "light")
    assert abs(ink - paper) > 450
    figure = browser.execute_script(
        "return getComputedStyle(document.querySelector('figure svg text')).fill"
    )
    assert figure == colours[0]


def test_every_image_and_figure_has_words_for_those_who_do_not_see_it(
    browser: Any, page: Path
) -> None:
    browser.get(page.as_uri())
    words = browser.execute_script(
        "return [...document.images].map(i => i.alt).concat("
        "[...document.querySelectorAll('figure svg')].map(s => s.getAttribute('aria-label')))"
    )
    assert all(words)
