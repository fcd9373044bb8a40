"""The page in a real browser: samples of five modalities, one error, a phone; and what it is made of."""

import base64
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common import make_values, settings_of
from PIL import Image

import metatransformer as mt
from metatransformer.modalities import get_modality

pytest.importorskip("fastapi", reason="the extra serve is not installed")

import uvicorn
from fastapi.testclient import TestClient

from metatransformer.faces.cli import main
from metatransformer.machine.console import Console
from metatransformer.serve.app import make_app
from metatransformer.serve.hosted import load_hosted, load_index
from metatransformer.serve.limits import Limits

KINDS = ("image", "audio", "text", "tabular", "graph", "imu", "pointcloud")
SERVED = Path(mt.__file__).parent / "serve"
QUIET = Console(quiet=True)
WAIT_S = 120


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A small model of each of some modalities, each saved."""
    folder, found = tmp_path_factory.mktemp("runs"), []
    for name in KINDS:
        values, labels = make_values(get_modality(name), 12)
        given = settings_of(name)
        model = mt.Classifier(name, encoder="test", device="cpu", precision="float32", recipe=given).fit(values, labels)
        model.save(folder / name)
        found.append(f"{name}={folder / name}")
    pictures = [np.where(np.arange(28)[:, None, None] < 9, 30, np.full((28, 28, 3), 200)).astype(np.uint8)] * 6
    masks = [picture[..., 0] // 200 for picture in pictures]
    recipe = {"input.size": 28, "head.centres": 0, "task.places": 300}
    mt.Segmenter("image", encoder="test", device="cpu", recipe=recipe).fit(pictures, masks).save(folder / "halves")
    return [*found, f"halves={folder / 'halves'}"]


@pytest.fixture(scope="module")
def index(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of five pictures with hostile names."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, pixels in enumerate(make_values(get_modality("image"), 5)[0]):
        Image.fromarray(pixels).save(folder / f"<b>{number}.png")
    place = tmp_path_factory.mktemp("index") / "vectors.parquet"
    image = next(run.partition("=")[2] for run in runs if run.startswith("image="))
    assert main(["embed", str(folder), "--model", image, "--out", str(place)]) == 0
    return place


def app_of(runs: list[str], index: Path) -> Any:
    hosted = load_hosted(runs, trunk="", encoder="", device="cpu", console=QUIET)
    near = load_index(str(index), model="", device="cpu", console=QUIET)
    return make_app(hosted, index=near, limits=Limits(decoders=1))


@pytest.fixture(scope="module")
def client(runs: list[str], index: Path) -> Iterator[TestClient]:
    with TestClient(app_of(runs, index)) as client:
        yield client


# --- what the page is made of -----------------------------------------------------------------------------------------


def test_no_text_becomes_html_and_nothing_comes_from_elsewhere():
    script, page, style = ((SERVED / f"page.{kind}").read_text(encoding="utf-8") for kind in ("js", "html", "css"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|setTimeout\(", script)
    assert not re.search(r"https?://|@import|url\(", script + page + style)
    assert "onclick" not in page and "style=" not in page and page.count("<script") == 1


def test_examples_are_answered_and_explained(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/page.js").headers["content-type"].startswith("text/javascript")
    for name in KINDS:
        (made,) = client.get("/example", params={"model": name}).json()["inputs"].values()
        if "base64" in made:
            file = (made["name"], base64.b64decode(made["base64"]), made["type"])
            found = client.post("/explain", data={"model": name, "places": "9"}, files={"files": file})
        else:
            text = made["text"]
            rows = {"rows": [json.loads(text)]} if text.startswith("{") else {}
            sent = rows or {"inputs": [json.loads(text) if text.startswith("[") else text]}
            found = client.post("/explain", json={"model": name, "places": 9, **sent})
        assert found.status_code == 200, (name, found.text)
        told = found.json()
        (part,) = told["inputs"].values()
        assert part["places"] and part["absent"] is None and told["picture"].startswith("iVBOR"), name


def test_what_cannot_be_explained_is_said(client: TestClient):
    two = {"model": "text", "inputs": ["a film", "a story"]}
    found = client.post("/explain", json=two)
    assert found.status_code == 422 and "must bring one sample" in found.json()["error"]["message"]
    other = client.post("/explain", json={"model": "text", "inputs": ["a film"], "answer": "z"})
    assert other.status_code == 422 and "must be an answer of the model" in other.json()["error"]["message"]
    assert client.get("/example", params={"model": "none"}).status_code == 404


# --- a real browser ---------------------------------------------------------------------------------------------------

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def address(runs: list[str], index: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(app_of(runs, index), host="127.0.0.1", port=port, log_level="error", lifespan="on")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + WAIT_S
    while not server.started and time.monotonic() < until:
        threading.Event().wait(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(WAIT_S)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium with chromedriver here (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_argument("--window-size=900,1200")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    yield driver
    driver.quit()


class Page:
    """What a person does with the page."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)
        self.until(lambda: self.all("#model option"))

    def until(self, seen: Any) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, WAIT_S).until(lambda _: seen())

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def choose(self, modality: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one("#modality")).select_by_value(modality)

    def hand_in(self, *files: Path) -> None:
        self.one("#inputs input[type=file]").send_keys("\n".join(map(str, files)))

    def answered(self) -> str:
        """Asks, and returns what is answered, once all of it is there."""
        self.one("#predict").click()
        self.until(lambda: self.one("#predict").is_enabled() and (self.all("#seen img") or self.problem()))
        return self.one("#result").text

    def problem(self) -> str:
        shown = self.one("#problem")
        return shown.text if shown.is_displayed() else ""

    def picture(self, name: str) -> None:
        """Keeps what is seen, where somebody wants to look at it (a folder in METATRANSFORMER_SCREENSHOTS)."""
        if folder := os.environ.get("METATRANSFORMER_SCREENSHOTS"):
            height = self.driver.execute_script("return document.documentElement.scrollHeight")
            width = self.driver.get_window_size()["width"]
            self.driver.set_window_size(width, min(2400, height + 160))
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, client: TestClient) -> dict[str, Path]:
    """A file of each of five modalities, the picture's under a hostile name."""
    folder, found = tmp_path_factory.mktemp("samples"), {}
    names = {"image": "<img src=x onerror=alert(1)>.png", "text": "words.txt"}
    for name in ("image", "audio", "pointcloud", "imu", "text"):
        (made,) = client.get("/example", params={"model": name}).json()["inputs"].values()
        content = base64.b64decode(made["base64"]) if "base64" in made else made["text"].encode()
        found[name] = folder / names.get(name, made.get("name", name))
        found[name].write_bytes(content)
    return found


def test_five_modalities_by_upload(browser: Any, address: str, samples: dict[str, Path]):
    page = Page(browser, address)
    for name, file in samples.items():
        page.choose(name)
        page.hand_in(file)
        text = page.answered()
        assert not page.problem(), (name, page.problem())
        assert "Probabilities" in text and "What it rests on" in text and re.search(r"\d\.\d %", text), (name, text)
        assert page.one("#status").text.startswith("Answered: ")
        assert page.one("#seen img").get_attribute("alt").startswith("The sample; places that")
        assert browser.execute_script("return document.querySelector('#seen img').naturalWidth") > 100
        assert len(page.all("#seen tbody tr")) > 1
        page.picture(name)
        if name == "image":
            assert file.name in page.one("#predictions").text  # as text, not as a picture of that source
            assert not page.all("img[src=x]")
            assert len(page.all("#neighbours li")) == 5 and "<b>" in page.one("#neighbours").text
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not [line for line in errors if "/neighbours" not in line["message"]], errors


def test_a_mask_is_shown_with_its_classes(browser: Any, address: str, samples: dict[str, Path]):
    from selenium.webdriver.support.ui import Select

    page = Page(browser, address)
    page.choose("image")
    Select(page.one("#model")).select_by_value("halves")
    page.hand_in(samples["image"])
    page.one("#predict").click()
    page.until(lambda: page.one("#predict").is_enabled() and (page.all(".mask") or page.problem()))
    assert not page.problem() and not page.one("#inside").is_displayed()
    assert browser.execute_script("return document.querySelector('.mask').naturalWidth") > 10
    shares = [float(cell.text.removesuffix(" %")) for cell in page.all("#predictions td")]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.2)
    assert page.one(".guess").text == f"mostly {page.one('#predictions th').text.strip()}"
    colours = {swatch.value_of_css_property("background-color") for swatch in page.all(".swatch")}
    assert len(colours) == len(shares)
    page.picture("mask")


def test_a_bad_file_is_told_in_plain_words(browser: Any, address: str, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    page = Page(browser, address)
    page.choose("image")
    page.one("#predict").click()
    assert page.until(page.problem) == "Choose a file."
    page.hand_in(tmp_path / "broken.png")
    page.answered()
    assert "broken.png" in page.problem() and "must" in page.problem() and not page.one("#result").is_displayed()
    assert page.one("#problem").get_attribute("role") == "alert"
    page.picture("error")


def test_it_works_by_keyboard_on_a_phone(browser: Any, address: str):
    from selenium.webdriver.common.keys import Keys

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    )
    page = Page(browser, address)
    page.choose("text")
    for name in ("model", "in-0", "in-0-text", "predict", "example"):  # in the order of the page
        assert browser.execute_script(f"return document.getElementById('{name}').tabIndex") == 0
    browser.execute_script("document.getElementById('example').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: page.one("#in-0-text").get_attribute("value"))
    browser.execute_script("document.getElementById('predict').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: page.all("#seen img"))
    assert browser.execute_script("return document.activeElement.id") == "result"
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 360, f"{wide} pixels wide"
    small = browser.execute_script(
        "return [...document.querySelectorAll('button')].filter(b => b.offsetHeight < 44).map(b => b.id)"
    )
    assert not small
    page.picture("phone")


def test_everything_has_a_name_for_a_screen_reader(browser: Any, address: str):
    page = Page(browser, address)
    bare = browser.execute_script(
        "return [...document.querySelectorAll('select, input, textarea')]"
        ".filter(one => !one.labels.length && !one.closest('[hidden]')).map(one => one.id)"
    )
    assert not bare
    assert page.one("html").get_attribute("lang") == "en"
    assert [one.get_attribute("role") for one in page.all("#status, #problem")] == ["status", "alert"]
    assert page.one("#status").get_attribute("aria-live") == "polite"
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        for selector in ("h1", ".hint", "a[href=docs]", "#example", "#predict"):
            assert _contrast(browser, selector) >= 4.5, (scheme, selector)


def _contrast(browser: Any, selector: str) -> float:
    """The contrast of an element's text on what is behind it, as WCAG 2 has it."""
    script = (
        "let one = document.querySelector(arguments[0]), found = [getComputedStyle(one).color];"
        "while (one && getComputedStyle(one).backgroundColor === 'rgba(0, 0, 0, 0)') one = one.parentElement;"
        "found.push(getComputedStyle(one || document.body).backgroundColor); return found;"
    )
    light = []
    for colour in browser.execute_script(script, selector):
        share = np.array([int(value) for value in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    return (max(light) + 0.05) / (min(light) + 0.05)
