"""The report of a whole result: complete, self-contained, safe, and readable in all media."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atrous.runtime import OutputError
from atrous.runtime.benchmark.report import render_report, write_report

from .drawn_results import make_result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here to open the page with")
VOID = {"meta", "br", "link", "img"}


class _Reader(HTMLParser):
    """Collects text and attributes, and that every element is closed where it must be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(make_result())


def test_everything_has_its_section(page: str) -> None:
    assert read(page).headings == [
        "Comparison",
        "Stages",
        "Many images side by side",
        "Under load",
        "Accuracy and speed",
        "Roofline",
        "Subjects",
        "Environment",
        "Warnings",
        "To reproduce",
    ]
    assert page.count("<svg ") == 7
    text = "".join(read(page).text)
    for words in (
        "too noisy to conclude",
        "86.40%",
        "Bounds by the call times: network 47.6/s, CRF 30.3/s, cores 18.1/s; reached are 96%.",
        "17.4 [17, 17.7] images/s in the median of 9 rounds of 24 images",
        "atrous bench bundle --vs onnxruntime:int8",
    ):
        assert words in text


def test_loads_and_runs_nothing(page: str) -> None:
    reader = read(page)
    assert "script" not in {tag for tag, _, _ in reader.attributes}
    assert "<script" not in page
    assert not [
        a for a in reader.attributes if a[1] in ("src", "href", "srcset", "action", "data") or a[1].startswith("on")
    ]
    assert set(re.findall(r"url\(.", page)) <= {"url(#"}  # parts of the same drawing
    assert all(value.startswith("#") for _, name, value in reader.attributes if name == "xlink:href")
    assert "@import" not in page
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' <]+", page)) <= names
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_text_of_a_result_stays_text() -> None:
    hostile = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
    page = render_report(make_result(hostile=hostile))
    reader = read(page)
    assert "<script" not in page
    assert "<img" not in page
    assert hostile in "".join(reader.text)


def test_no_section_for_what_was_not_measured() -> None:
    result = make_result()
    bare = result.subjects[0].model_copy(
        update={"pipeline": None, "load": (), "curve": (), "accuracy": (), "roofline": None}
    )
    page = render_report(result.model_copy(update={"subjects": (bare,), "comparisons": ()}))
    headings = read(page).headings
    assert headings == ["Stages", "Subjects", "Environment", "Warnings", "To reproduce"]


def test_labels_that_change_in_the_pipeline_are_reported() -> None:
    assert "0.0100% of the pixels are labeled differently" in render_report(make_result(hostile="x"))


def test_the_same_result_gives_the_same_bytes(page: str) -> None:
    assert render_report(make_result()) == page


def test_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_report(make_result(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(make_result(), tmp_path / "report.html" / "again.html")


def run_chromium(*arguments: str) -> str:
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # shared, it would wait for other browsers
        command = [CHROMIUM, *flags, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_fits_a_phone_and_a_desk(page: str, width: int, tmp_path: Path) -> None:
    frame = f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="{html.escape(page, quote=True)}"></iframe>'
    script = (
        "<script>onload=()=>{const root=document.querySelector('iframe').contentDocument.documentElement;"
        "document.title=root.scrollWidth+' '+root.scrollHeight}</script>"
    )
    (tmp_path / "frame.html").write_text(f"<!doctype html><title>-</title>{script}{frame}", encoding="utf-8")
    found = run_chromium("--dump-dom", (tmp_path / "frame.html").as_uri())
    title = re.search(r"<title>(\d+) (\d+)</title>", found)
    assert title is not None
    assert int(title[1]) <= width
    assert int(title[2]) > 2000


@needs_chromium
def test_is_dark_where_the_reader_is(page: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    levels = {}
    for scheme, setting in (("dark", "0"), ("light", "1")):
        picture = tmp_path / f"{scheme}.png"
        run_chromium(
            f"--blink-settings=preferredColorScheme={setting}",
            "--window-size=900,1400",
            f"--screenshot={picture}",
            (tmp_path / "report.html").as_uri(),
        )
        levels[scheme] = float(np.median(np.asarray(Image.open(picture).convert("L"))))
    assert levels["dark"] < 60 < 200 < levels["light"]


@needs_chromium
def test_prints(page: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    run_chromium(f"--print-to-pdf={tmp_path / 'report.pdf'}", (tmp_path / "report.html").as_uri())
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type/Page") <= 40
