"""The page in headless Chromium, as a person uses it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atrous.bundle.crf_parameters import CrfParameters

from .browser import CHROMIUM, Page, open_browser
from .conftest import Served, start_server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page with")
READY = "state.sides.length && document.body.dataset.kind === 'exact' && !state.busy"


@pytest.fixture(scope="module")
def two_models(miniature: Path) -> Iterator[Served]:
    with start_server(miniature, f"other={miniature}", "--threads", 2) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with open_browser() as page:
        yield page


@pytest.fixture
def page(browser: Page, two_models: Served, scenes: Any) -> Page:
    """The page with a photo dropped on it."""
    browser.events.clear()
    browser.open(two_models.http)
    browser.drop(scenes[0][0], scenes[0][1], "image/png")
    browser.wait(READY)
    return browser


def read_labels(page: Page, side: int = 0) -> np.ndarray:
    found = page.run(f"(({{labels, width, height}}) => ({{labels: [...labels], width, height}}))(state.sides[{side}])")
    return np.array(found["labels"], np.uint8).reshape(found["height"], found["width"])


def set_value(page: Page, name: str, value: object, *events: str) -> None:
    dispatch = "".join(f"one.dispatchEvent(new Event('{event}', {{bubbles: true}}));" for event in events)
    page.run(f"(() => {{ const one = $('{name}'); one.value = {json.dumps(value)}; {dispatch} }})()")


def text(page: Page, name: str) -> str:
    found: str = page.run(f"$('{name}').textContent")
    return found


def test_a_dropped_photo_is_labeled(page: Page, two_models: Served, scenes: Any, direct: Any) -> None:
    expected = direct(scenes[0][2])
    np.testing.assert_array_equal(read_labels(page), expected)
    rows = page.run("[...$('rows').rows].map((row) => [...row.cells].map((cell) => cell.textContent))")
    names, manifest = dict(rows), direct.bundle.manifest
    for label, count in enumerate(np.bincount(expected.ravel(), minlength=len(manifest.classes))):
        if count:
            assert names[manifest.classes[label]] == f"{100 * count / expected.size:.1f} %"
    addresses = {
        event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
    }
    assert all(address.startswith((two_models.http, "data:", "blob:")) for address in addresses)
    assert not [event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]


def test_a_slider_runs_the_crf_again(page: Page, scenes: Any, direct: Any) -> None:
    requests = len(page.events)
    set_value(page, "weight", 15, "input")
    page.wait("document.body.dataset.kind === 'preview' && !state.busy")
    assert read_labels(page).shape == (120, 160)
    set_value(page, "weight", 15, "input", "change")
    page.wait(READY)
    crf = replace(direct.crf, bilateral=(replace(direct.crf.bilateral[0], weight=15.0), *direct.crf.bilateral[1:]))
    expected = direct.derive(crf=crf, sizing=direct.sizing)(scenes[0][2])
    np.testing.assert_array_equal(read_labels(page), expected)
    assert (expected != direct(scenes[0][2])).any()
    sent = [event["params"]["request"] for event in page.events[requests:] if "request" in event["params"]]
    assert all(len(request.get("postData", "")) < 500 for request in sent)  # the photo is not sent again
    page.run("$('reset').click()")
    page.wait(READY)
    page.wait("$('status').textContent.startsWith('Exact')")
    np.testing.assert_array_equal(read_labels(page), direct(scenes[0][2]))


def test_off_and_mode(page: Page, scenes: Any, direct: Any) -> None:
    image = scenes[0][2]
    page.run("$('on').click()")
    page.wait("$('status').textContent.startsWith('Exact')")
    off = direct.finish(image, direct.run_network(direct.prepare(image)), crf=False).labels
    np.testing.assert_array_equal(read_labels(page), off)
    assert page.run("$('weight').disabled")
    page.run("$('on').click()")
    set_value(page, "mode", "pydensecrf", "change")
    page.wait("!state.busy && !state.queued && $('status').textContent.startsWith('Exact')")
    crf = replace(direct.crf, mode="pydensecrf")
    np.testing.assert_array_equal(read_labels(page), direct.derive(crf=crf, sizing=direct.sizing)(image))


def test_views_and_divider(page: Page) -> None:
    colors = {}
    for view in ("image", "labels", "overlay"):
        page.run(f"document.querySelector('[name=view][value={view}]').click()")
        colors[view] = page.run("[...$('left').getContext('2d').getImageData(5, 5, 1, 1).data]")
    assert len({tuple(color) for color in colors.values()}) == 3
    page.run("$('split').click()")
    assert not page.run("$('right').hidden")
    page.run("$('place').focus()")
    page.press("ArrowRight")
    assert page.run("$('right').style.clipPath") == "inset(0px 0px 0px 51%)"
    page.run("$('place').blur()")


def test_comparing_two_models(page: Page) -> None:
    set_value(page, "other", "other", "change")
    page.wait("state.sides.length === 2")
    np.testing.assert_array_equal(read_labels(page, 0), read_labels(page, 1))
    heads = page.run("[...$('heads').rows[0].cells].map((cell) => cell.textContent)")
    assert heads == ["Class", "Share, deeplab-miniature", "Share, other"]
    assert not page.run("$('edge').hidden")


def test_mean_iou_with_true_labels(page: Page, scenes: Any, direct: Any, tmp_path: Path) -> None:
    from atrous.scripts.miniature.settings import MiniatureFiles, read_settings

    files = MiniatureFiles()
    truth_path = files.scene(read_settings(files.settings).scenes[0])[1]
    with Image.open(truth_path) as picture:
        truth = np.array(picture)
    ious, labels = [], direct(scenes[0][2])
    for label in range(len(direct.bundle.manifest.classes)):
        union = (((truth == label) | (labels == label)) & (truth != 255)).sum()
        if union:
            ious.append(((truth == label) & (labels == label)).sum() / union)
    page.choose("#truth", truth_path)
    page.wait("state.truth")
    assert text(page, "mean") == f"Mean IoU: {100 * np.mean(ious):.1f} %"
    Image.fromarray(truth).convert("L").save(tmp_path / "gray.png")  # the numbers as gray levels
    page.run("$('no-truth').click()")
    page.choose("#truth", tmp_path / "gray.png")
    page.wait("state.truth")
    assert text(page, "mean") == f"Mean IoU: {100 * np.mean(ious):.1f} %"
    Image.new("L", (50, 200)).save(tmp_path / "other.png")
    page.choose("#truth", tmp_path / "other.png")
    page.wait("!$('error').hidden")
    assert "another shape" in text(page, "error")


def test_errors_are_shown(page: Page, two_models: Served) -> None:
    page.drop("notes.txt", b"hello", "text/plain")
    page.wait("!$('error').hidden")
    assert "notes.txt is not an image" in text(page, "error")
    # the server drops the image: the page sends it again, and the move counts
    page.run("fetch(`/page/images/${state.sides[0].model.name}/${state.sides[0].image}`, {method: 'DELETE'})")
    before = page.run("state.sides[0].image")
    set_value(page, "weight", 3, "input", "change")
    page.wait(f"state.sides.length && state.sides[0].image !== '{before}' && !state.busy")
    assert page.run("$('error').hidden")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.emulateNetworkConditions", offline=True, **network)
    try:
        set_value(page, "weight", 4, "input", "change")
        page.wait("!$('error').hidden")
        assert "cannot be reached" in text(page, "error")
    finally:
        page.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )


def test_copied_settings_give_the_labels_of_the_page(page: Page, miniature: Path, scenes: Any, tmp_path: Path) -> None:
    set_value(page, "weight", 12, "input", "change")
    set_value(page, "iterations", 4, "input", "change")
    page.wait("!state.busy && !state.queued && $('status').textContent.startsWith('Exact')")
    expected = read_labels(page)
    (tmp_path / "photo.jpg").write_bytes(scenes[0][1])
    command = page.run("describe('command')")
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    with Image.open(tmp_path / "labels.png") as picture:
        np.testing.assert_array_equal(np.array(picture), expected)
    code = (
        page.run("describe('python')")
        .replace("BUNDLE", str(miniature))
        .replace("photo.jpg", str(tmp_path / "photo.jpg"))
    )
    names: dict[str, Any] = {}
    exec(code, names)
    np.testing.assert_array_equal(names["labels"], expected)
    assert CrfParameters.from_dict(json.loads(page.run("describe('manifest')"))["crf"]) == names["crf"]
    page.run("document.querySelector('[data-copy=python]').click()")
    page.wait("!$('copied').hidden")
    assert "CrfParameters(" in text(page, "copied")


def test_keyboard_and_screen_reader(page: Page) -> None:
    page.run("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(30):
        page.press("Tab")
        reached.append(
            page.run("document.activeElement.id || document.activeElement.dataset.copy || document.activeElement.name")
        )
    for name in ("model", "theme", "file", "view", "split", "opacity", "command", "on", "mode", "weight", "truth"):
        assert name in reached, (name, reached)
    page.run("$('weight').focus()")
    before = page.run("$('weight').value")
    page.press("ArrowRight")
    assert page.run("$('weight').value") != before
    page.wait("$('status').textContent.startsWith('Exact')")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "checkbox", "radio", "combobox", "image", "textbox"}
    controls = [node for node in nodes if not node.get("ignored") and node["role"]["value"] in roles]
    assert len(controls) >= 20
    assert all(node["name"]["value"] for node in controls), [node for node in controls if not node["name"]["value"]]
    assert any("sky" in node["name"]["value"] for node in controls if node["role"]["value"] == "image")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 900)], ids=["phone", "desk"])
def test_fits_in_both_themes(
    browser: Page, two_models: Served, scenes: Any, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    browser.open(two_models.http, width, height, dark=dark)
    browser.drop(scenes[0][0], scenes[0][1], "image/png")
    browser.wait(READY)
    browser.run("$('split').click()")
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.take_picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        level = float(np.median(np.asarray(picture.convert("L"))))
    assert level < 80 if dark else level > 200
    wanted = "light" if dark else "dark"
    set_value(browser, "theme", wanted, "change")
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(background.replace("rgb(", "[").replace(")", "]"))) > 400) == (wanted == "light")


def test_a_token_is_asked_for(browser: Page, miniature: Path, scenes: Any) -> None:
    with start_server(miniature, ATROUS_SERVE_TOKEN="0123456789abcdef") as served:
        browser.call("Page.navigate", url=served.http)
        browser.wait("typeof $ === 'function' && $('login').open")
        browser.run("$('token').value = '0123456789abcdef'; $('login').querySelector('button').click()")
        browser.wait("document.body.dataset.ready === 'yes'")
        browser.drop(scenes[0][0], scenes[0][1], "image/png")
        browser.wait(READY)
