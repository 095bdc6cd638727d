"""The page as a browser shows it."""

import base64
import json

import pytest

from stages.benchmark.pages import write_pages
from tests.stages.benchmark.browser import browser, find_browser
from tests.stages.benchmark.judged import mixed_groups, save
from tests.stages.benchmark.page_runs import edits_lines, report_in_sections, trace_of, write_run
from tests.waiting import wait_until

CHROMIUM = find_browser()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium"),
]
LOADED = """Promise.all(Array.from(document.images, (image) => {
    image.loading = "eager"; return image.decode().then(() => image.naturalWidth);
}))"""


@pytest.fixture
def report_page(tmp_path):
    """Return the path of a page with everything in it."""
    results = save(tmp_path, mixed_groups(), steps=50)
    ids = [each["id"] for each in json.loads(results.read_text())["samples"]]
    results.with_name("edits.jsonl").write_text(edits_lines(ids))
    hostile = "</text><script>document.title='pwned'</script>"
    run_report, trace = write_run(tmp_path / "run", report_in_sections(), trace_of(hostile=hostile))
    page = results.with_name("report.html")
    write_pages(results, page, run_report=run_report, trace=trace, images=tmp_path / "no images")
    return page


@pytest.fixture
def tab(tmp_path, report_page):
    with browser(CHROMIUM, tmp_path / "profile") as page:
        page.open(report_page)
        yield page


def test_a_browser_shows_pictures_tables_histogram_and_timeline(tab):
    widths = tab.value(LOADED)
    assert len(widths) == 2 * 9
    assert min(widths) > 0
    assert tab.value("document.querySelectorAll('#scores tbody tr').length") >= 3
    assert tab.value("document.querySelector('#scores tfoot').innerText").startswith("overall")
    seen = "(name) => document.querySelector(name).getBoundingClientRect()"
    for chart, shapes in (("#histogram", ".bar"), ("#timeline", ".stage0")):
        assert tab.value(f"({seen})('{chart}').height") > 50
        assert tab.value(f"document.querySelectorAll('{chart} {shapes}').length") >= 4
    colour = "getComputedStyle(document.querySelector('#timeline .stage0')).fill"
    assert tab.value(colour) == "rgb(47, 111, 219)"
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    _look(tab)


def test_nothing_that_others_wrote_runs_and_nothing_is_fetched(tab, report_page):
    asked = [each["request"]["url"] for each in tab.of("Network.requestWillBeSent")]
    fetched = [url for url in asked if not url.startswith("data:")]
    assert fetched == [report_page.as_uri()]
    assert tab.value("document.title") == "edit: origin"
    assert tab.value("document.scripts.length") == 1
    assert tab.value("document.querySelectorAll('[onerror], [onload], [onclick]').length") == 0
    shown = "document.querySelector('[data-state=unparsed] .instruction').textContent"
    assert "<script>document.title='pwned'</script>" in tab.value(shown)
    assert [each["entry"] for each in tab.of("Log.entryAdded")] == []
    assert tab.of("Runtime.exceptionThrown") == []


def test_samples_can_be_filtered_and_sorted(tab):
    shown = "Array.from(document.querySelectorAll('.card:not([hidden]) h3'), (e) => e.textContent)"
    assert tab.value(shown)[:3] == ["c1", "c4", "p2"]

    def choose(field, value):
        tab.value(
            f"(() => {{ const e = document.getElementById('{field}'); e.value = '{value}';"
            "e.dispatchEvent(new Event('input')); })()"
        )

    choose("by-score", "down")
    wait_until(lambda: tab.value(shown)[:2] == ["e1", "p1"])
    choose("by-group", "causal")
    assert tab.value(shown) == ["c4", "c1", "c3"]
    choose("by-state", "unjudged")
    choose("by-text", "timed out")
    assert tab.value(shown) == ["c3"]
    assert tab.value("document.getElementById('shown').textContent") == "1 of 10"


def test_without_scripts_everything_is_there(tmp_path, report_page):
    with browser(CHROMIUM, tmp_path / "profile") as page:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(report_page)
        assert page.value("document.querySelectorAll('.card:not([hidden])').length") == 10
        assert page.value("getComputedStyle(document.querySelector('.controls')).display") == "none"


def test_it_is_readable_in_light_and_in_dark(tab):
    contrast = """(() => {
        const light = (rgb) => rgb.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
        const back = (e) => { for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
        const worst = (e) => { const s = getComputedStyle(e);
            const [a, b] = [light(e.ownerSVGElement ? s.fill : s.color), light(back(e))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
        const all = 'p, td, th, h1, h2, h3, a, summary, .badge, caption, figcaption, svg text';
        return Math.min(...Array.from(document.querySelectorAll(all), worst));
    })()"""
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.call("Emulation.setEmulatedMedia", features=features)
        assert tab.value(contrast) >= 4.5, scheme


def test_it_fits_a_narrow_window(tab):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    tab.call("Emulation.setDeviceMetricsOverride", **size)
    assert tab.value("document.documentElement.scrollWidth") <= 390


def _look(tab):
    """See that a picture of the page is not of one colour."""
    png = base64.b64decode(tab.call("Page.captureScreenshot", format="png")["data"])
    assert len(png) > 10_000
