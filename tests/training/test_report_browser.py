"""The report in a real browser: no error, no sideways scrolling, a calculator that computes.

Skipped where no Chromium is installed. It is spoken to over its debugging pipe, so that no port is
opened and nothing has to be installed for it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_sdk.agreement import METRICS
from edge_sdk.backends.base import Label
from edge_sdk.ladder import FULL, PAPER
from edge_sdk.policy import OperatingPoint
from training.labels.table import AnswerTable
from training.measure import baselines, fit_page
from training.measure.calculator import sentence
from training.measure.cost import Prices, cost_of
from training.measure.evaluate import evaluate_policies
from training.measure.failures import Failure, Failures, Shown
from training.measure.report import PhotoSet, Report, agent_curve, fixed_curve, rung_shares
from training.measure.uploads import uploads_of
from training.measure.verdict import judge
from training.reproduce.exhibit import Exhibit
from training.reproduce.page import page as reproduction

pytest.importorskip("matplotlib")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

#: The browser wants its pipe as descriptors 3 and 4: (own end to read, own end to write, command).
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""

#: A browser that says nothing for so long will say nothing more, seconds.
PATIENCE = 90.0

#: Windows' numbers of keys that are not their letter's.
KEYS = {".": 190, "-": 189}

PHONE, DESK = (360, 740), (1280, 900)


class Browser:
    """One page of a headless Chromium, over the DevTools protocol."""

    def __init__(self, folder: Path) -> None:
        requests, self._out = os.pipe()
        self._in, answers = os.pipe()
        flags = (
            *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
            *("--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"),
        )
        ends = requests, answers
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *map(str, ends), str(CHROMIUM), *flags, "about:blank"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(requests)
        os.close(answers)
        self._rest, self._last, self._session = b"", 0, ""
        self.complaints: list[str] = []

    def attach(self) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._until(lambda answer: answer.get("id") == self._last)["result"]

    def open(self, url: str) -> None:
        self.complaints = []
        self.call("Page.navigate", url=url)
        while self.evaluate("location.href + document.readyState") != f"{url}complete":
            pass  # every turn waits for the browser

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def show(self, size: tuple[int, int], *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: int, letter: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            text = {"text": letter} if letter and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def picture(self) -> np.ndarray:
        png = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def close(self) -> None:
        os.close(self._out)  # the browser leaves with its pipe
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def _until(self, wanted: Callable[[Any], bool]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            while b"\0" not in self._rest:
                ready, _, _ = select.select([self._in], [], [], deadline - time.monotonic())
                assert ready, "the browser says nothing"
                read = os.read(self._in, 1 << 16)
                assert read, "the browser is gone"
                self._rest += read
            line, self._rest = self._rest.split(b"\0", 1)
            message = json.loads(line)
            self._note(message)
            if wanted(message):
                return message

    def _note(self, message: Any) -> None:
        """Keep errors, warnings, and every request for something that is not in the page."""
        method, said = message.get("method"), message.get("params", {})
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(json.dumps(said)[:500])
        if method == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith(("data:", "file:")):
                self.complaints.append(url)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        opened.attach()
        yield opened
    finally:
        opened.close()


def answers(ladder: Any) -> AnswerTable:
    """A made-up answer table of 60 photos."""
    draw, n = np.random.default_rng(4), 60
    strength = np.linspace(0.3, 1.0, len(ladder))
    agrees = (strength >= draw.random((n, 1))).astype(float)
    sizes = np.rint(40_000 * strength**2 * draw.uniform(0.7, 0.95, (n, 1))).astype(np.int64)
    whole = np.full(n, 40_000)
    return AnswerTable(
        ladder=ladder,
        keys=np.arange(n).astype(object),
        groups=np.arange(n).astype(object),
        reference_bytes=whole,
        reference_wire=whole,
        bytes=sizes,
        wire=sizes,
        agreement=dict.fromkeys(METRICS, agrees),
        reference_score=np.linspace(0.0, 1.0, n),
        reference_label=np.array(["cat"] * n, dtype=object),
    )


def shown(side: int, labels: Sequence[Label]) -> Shown:
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    return Shown(
        size=len(jpeg), width=side, height=side, labels=labels, picture=jpeg, exact=side < 100
    )


@pytest.fixture(scope="module")
def report() -> Report:
    """A report with everything that may be on its page, and names that do not break."""
    table, paper, rng = answers(FULL), answers(PAPER), np.random.default_rng(0)
    agent, calls, n = baselines.oracle(table), np.full(60, 1.2), 400
    prices = Prices(usd_per_gb=0.09, usd_per_call=0.0, images_per_day=10_000)
    labels = [Label(f"{'very' * 20}_long_name", 0.9), Label("<b>cat</b>", 0.1)]
    failure = Failure(
        photo="a<b>_" * 20 + ".jpg",
        rung="q15@0.25",
        agreement=0.0,
        reference=shown(120, labels),
        sent=shown(40, labels[1:]),
    )
    return Report(
        command=f"python -m training evaluate {'--images photos ' * 20}",
        seed=0,
        photos={
            name: PhotoSet(photos=60, views=60, fingerprint="ab" * 32)
            for name in ("train", "calibration", "test")
        },
        backend={"name": "local:model", "model_version": "1" * 64, "min_score": 0.0},
        ladder=FULL,
        operating_point=OperatingPoint(
            trade_off=2.0,
            target=0.95,
            delta=0.05,
            certified=True,
            test="binomial",
            n=400,
            n_effective=400.0,
            achieved=0.97,
        ),
        policies=evaluate_policies(
            table, agent, known=table, paper=paper, known_paper=paper, target=0.95, rng=rng
        ),
        gap_closed={"agent": None},
        verdict=judge(table, agent, target=0.95, rng=rng),
        labels_bought=1,
        cost_usd=0.0,
        curve={
            "fixed_paper": fixed_curve(paper),
            "fixed": fixed_curve(table),
            "agent": agent_curve(table, {1.0: agent}),
        },
        sceneries={"day": rung_shares(FULL[rung].name for rung in agent)},
        timeline={
            "image": list(range(n)),
            "scenery": ["day"] * 200 + ["night"] * 200,
            "state": ["inference"] * 390 + ["retraining"] * 10,
            "p_est": [0.1] * n,
            "accuracy": [1.0] * n,
            "wire_bytes": [20_000] * n,
            "reference_wire_bytes": [50_000] * n,
            "rung": ["q15"] * n,
            "agent_id": [None] * n,
        },
        versions={"adacompress": "0.1.0"},
        timings_s={"labels": 12.3},
        uploads=uploads_of(table, agent, calls, rng=rng),
        prices=prices,
        cost=cost_of(table, agent, calls, prices, decision_ms=1.0, rng=rng),
        failures=Failures(pictures=60, failed=9, worst=(failure,) * 6),
    )


@pytest.fixture(scope="module")
def url(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    _, page = report.write(tmp_path_factory.mktemp("report"))
    assert page.stat().st_size < 3_000_000
    return page.as_uri()


def sideways(browser: Browser) -> int:
    """Return by how many pixels the page is wider than the screen."""
    return int(browser.evaluate("(e => e.scrollWidth - e.clientWidth)(document.documentElement)"))


def output(browser: Browser) -> str:
    return str(browser.evaluate("document.querySelector('output').textContent"))


def focused(browser: Browser) -> str:
    name = "e.name || e.getAttribute('aria-label') || e.tagName"
    return str(browser.evaluate(f"(e => {name})(document.activeElement)"))


def type_into(browser: Browser, letters: str) -> None:
    browser.evaluate("document.activeElement.select()")
    for letter in letters:
        browser.press(letter, KEYS.get(letter, ord(letter)), letter)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_page_fits_any_screen_without_an_error(
    browser: Browser, url: str, size: tuple[int, int], dark: bool
) -> None:
    browser.show(size, dark=dark)
    browser.open(url)
    assert browser.complaints == []
    assert browser.evaluate("innerWidth") == size[0]
    assert not sideways(browser)
    broken = "[...document.images].filter(one => !one.naturalWidth).length"
    assert (browser.evaluate("document.images.length"), browser.evaluate(broken)) == (12, 0)
    assert (browser.picture()[0, 0].mean() < 60) == dark


def test_all_details_may_be_open_on_a_phone(browser: Browser, url: str) -> None:
    browser.show(PHONE)
    browser.open(url)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("innerWidth") == PHONE[0]
    assert not sideways(browser)


@pytest.mark.parametrize("dark", [False, True])
def test_the_report_of_a_fit_fits_a_phone_without_an_error(
    browser: Browser, tmp_path: Path, dark: bool
) -> None:
    point = OperatingPoint(trade_off=2.0, target=0.95, delta=0.05, certified=True, n=9)
    page = tmp_path / "fit.html"
    html = fit_page.render(
        {
            "scenery": "day",
            "operating_points": [point.as_dict()] * 2,
            "on_calibration": None,
            "contest": {"winner": "static", "log_loss": {"static": 0.5, "probing": 0.6}},
            "started": False,
            "rungs": {"q60@0.5-progressive-t0123": 0.75, "q15": 0.25},
            "photos": {"train": {"photos": 9, "views": 9, "fingerprint": "ab" * 32}},
            "labels_bought": 1,
            "cost_usd": 0.0,
            "command": "python -m training fit " + "--images photos " * 9,
            "backend": {"name": "local:model"},
            "seed": 0,
            "versions": {},
            "timings_s": {},
        }
    )
    page.write_text(html, encoding="utf-8")
    browser.show(PHONE, dark=dark)
    browser.open(page.as_uri())
    assert browser.evaluate("innerWidth") == PHONE[0]
    assert not sideways(browser)
    assert browser.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_of_a_reproduction_fits_a_phone_without_an_error(
    browser: Browser, tmp_path: Path, dark: bool
) -> None:
    svg = '<svg viewBox="0 0 900 300" width="900"><rect width="900" height="300"/></svg>'
    wide = {f"column {number}": "a sentence that goes on and on" for number in range(7)}
    exhibits = [
        Exhibit(name="headline", title="Here & there", caption="words " * 60, rows=[wide] * 3),
        Exhibit(name="figure5", title="Rungs", caption="seed 0", rows=[{"n": 1}], svg=svg),
    ]
    page = tmp_path / "reproduction.html"
    page.write_text(reproduction([*exhibits], [("The loop", svg)]), encoding="utf-8")
    browser.show(PHONE, dark=dark)
    browser.open(page.as_uri())
    assert browser.evaluate("innerWidth") == PHONE[0]
    assert not sideways(browser)
    assert browser.complaints == []
    assert (browser.picture()[0, 0].mean() < 60) == dark


def test_calculator_says_what_the_page_says_without_it_and_then_computes(
    browser: Browser, url: str, report: Report
) -> None:
    browser.show(DESK)
    browser.open(url)
    uploads = report.to_json()["uploads"]
    prices = {"usd_per_gb": 0.09, "usd_per_call": 0.0, "images_per_day": 10_000.0}
    assert output(browser) == sentence(uploads, prices)
    browser.evaluate("document.querySelector('[name=gigabyte]').focus()")
    type_into(browser, "12.5")
    assert output(browser) == sentence(uploads, prices | {"usd_per_gb": 12.5})
    browser.press("Tab", 9)
    assert focused(browser) == "call"
    type_into(browser, "0.0125")
    dear = prices | {"usd_per_gb": 12.5, "usd_per_call": 0.0125}
    assert output(browser) == sentence(uploads, dear)
    browser.press("Tab", 9)
    assert focused(browser) == "images"
    type_into(browser, "-3")
    assert output(browser) == "Give a number of 0 or more in every field."
    assert browser.complaints == []


def test_everything_that_can_be_used_is_reached_by_the_keyboard(browser: Browser, url: str) -> None:
    browser.show(DESK)
    browser.open(url)
    reached = set()
    for _ in range(12):
        browser.press("Tab", 9)
        reached.add(focused(browser))
        rims = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert focused(browser) == "BODY" or rims != "none"
    assert {"Policies", "SUMMARY", "gigabyte", "call", "images", "Command"} <= reached


def test_every_picture_is_described(browser: Browser, url: str) -> None:
    browser.open(url)
    told = browser.evaluate(
        "[...document.querySelectorAll('img,[role=img]')].map("
        "one => one.alt || one.getAttribute('aria-label') || '')"
    )
    assert len(told) == 12 + 3
    assert all(len(one) > 20 for one in told)


def test_without_javascript_the_sentence_stands_and_no_field_does(
    browser: Browser, url: str
) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(url)
        assert output(browser).startswith("10,000 images a day cost")
        assert browser.evaluate("document.querySelector('fieldset').offsetHeight") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_an_injected_script_does_not_run(browser: Browser, report: Report, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    evil = "<main><script>document.title = 'owned'</script><img src='https://192.0.2.1/x.png'>"
    html = replace(report, timeline=None).to_html().replace("<main>", evil)
    page.write_text(html, encoding="utf-8")
    browser.open(page.as_uri())
    assert browser.evaluate("document.title") == "AdaCompress report"
    assert len(browser.complaints) >= 2  # the browser tells that it refused both
