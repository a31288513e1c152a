"""The page in a real browser: Chromium, without a window."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from skipvsr.video.images import read_image
from skipvsr.video.read import VideoReader
from skipvsr.video.write import EncodeOptions
from tests.media import make_video, picture
from tests.web import PATIENCE_SECONDS, Server, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

# Starts in a machine without a window, a sandbox or a way out to the network, and looks for none.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TIMES = "\N{MULTIPLICATION SIGN}"
REQUIRED = os.environ.get("SKIPVSR_REQUIRE_BROWSER") == "1"

BOTH_SHOW = """() => {
    const videos = [...document.querySelectorAll("#viewer video")];
    return videos.length === 2 && videos.every((video) => video.readyState > 1 && video.videoWidth);
}"""


def missing(what: str) -> Any:
    """Skip, or fail where these tests must run."""
    if REQUIRED:
        pytest.fail(f"SKIPVSR_REQUIRE_BROWSER=1, and there is no {what}")
    pytest.skip(f"no {what}")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    make_video(folder / "clip.mp4", [picture(i, 96, 64) for i in range(50)], audio_codec="aac", audio_seconds=2)
    make_video(folder / "deep.mkv", [picture(i, 96, 64) for i in range(6)], codec="libx265", pixel_format="yuv444p10le")
    return folder


@pytest.fixture(scope="module")
def server(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("starlette", reason="needs skipvsr[web]")
    with Server(tmp_path_factory.mktemp("work") / "work", "--root", str(clips)) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    program = shutil.which("chromium") or missing("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=program, headless=True, args=FLAGS,
            viewport={"width": 1200, "height": 900}, reduced_motion="reduce",
        )  # fmt: skip
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        yield context
        context.close()


@pytest.fixture
def page(browser: BrowserContext, server: Server) -> Iterator[Page]:
    """The page, with nothing open; no script may fail, and nothing may be asked of another host."""
    for source in server.ok("GET", "/api/state")["sources"]:
        for job in server.ok("GET", "/api/state")["jobs"]:
            server.ask("DELETE", f"/api/jobs/{job['id']}")  # a copy goes with its result
        server.ok("DELETE", f"/api/sources/{source['id']}")
    opened = browser.new_page()
    errors: list[str] = []
    hosts: set[str] = set()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    opened.goto(server.address)
    opened.wait_for_selector("html[data-ready]")
    yield opened
    opened.close()
    assert errors == []
    assert hosts == {server.netloc}


def drop(page: Page, path: Path) -> None:
    """Drop a file onto the page, as the mouse would."""
    data = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([name, data]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            for (const kind of ["dragenter", "dragover", "drop"])
                document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [path.name, data],
    )


def open_clip(page: Page, path: Path) -> None:
    """Drop a clip, and wait for its first preview; by bicubic, which takes no time."""
    page.wait_for_selector("#model option[value=bicubic]", state="attached")
    page.evaluate("document.querySelector('#model').value = 'bicubic'")
    drop(page, path)
    page.wait_for_selector("#viewer[data-preview]")


def until(page: Page, expression: str, argument: Any = None) -> None:
    """Wait until a JavaScript expression is true. (Playwright's own way evaluates text, which the page's policy forbids.)"""
    wait_for(lambda: page.evaluate(expression, argument))


def preview_id(page: Page) -> str:
    return page.get_attribute("#viewer", "data-preview") or ""


def wait_for_next(page: Page, before: str) -> None:
    until(page, "before => document.querySelector('#viewer').dataset.preview !== before", before)


def state_of(page: Page, name: str) -> str:
    return page.evaluate(f"getComputedStyle(document.querySelector('#viewer')).getPropertyValue('{name}').trim()")


def test_drop_a_video_and_see_what_is_in_it(page: Page, clips: Path):
    assert page.is_visible("#welcome")
    open_clip(page, clips / "clip.mp4")
    assert page.is_hidden("#welcome")
    facts = page.inner_text("#found")
    for words in (
        f"96 {TIMES} 64",
        "0:02.0, 50 frames",
        "25 frames/s",
        "H.264 in MP4",
        "8 bits, yuv420p, BT.709",
        "AAC, mono",
    ):
        assert words in facts
    assert f"384 {TIMES} 256, H.264" in page.inner_text("#takes")
    until(page, "[...document.querySelectorAll('#thumbnails img')].every((image) => image.naturalWidth > 0)")


def test_what_is_no_video_is_said_and_can_be_dismissed(page: Page, tmp_path: Path):
    (tmp_path / "letter.mp4").write_text("Dear Sir or Madam")
    drop(page, tmp_path / "letter.mp4")
    page.wait_for_selector(".problem")
    assert "letter.mp4 cannot be read as a video" in page.inner_text(".problem")
    page.click(".problem button")
    assert page.locator(".problem").count() == 0
    assert page.is_visible("#welcome")


def test_pick_from_a_folder(page: Page):
    page.click("#welcome-browse")
    page.wait_for_selector("#entries .name")
    assert page.locator("#entries .name").all_inner_texts() == ["clip.mp4", "deep.mkv"]
    page.check("#entries li:has-text('clip.mp4') input")
    assert page.inner_text("#open-chosen") == "Open 1 video"
    page.click("#open-chosen")
    page.wait_for_selector(".source[aria-pressed=true]")
    assert "clip.mp4" in page.inner_text(".source")


def test_the_wipe_follows_the_pointer_and_both_layers_stay_in_step(page: Page, clips: Path, tmp_path: Path):
    open_clip(page, clips / "clip.mp4")
    box = page.locator("#viewer").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    assert float(state_of(page, "--wipe").rstrip("%")) == pytest.approx(25, abs=0.5)
    assert page.get_attribute("#viewer", "aria-valuenow") == "25"
    # Left of the line the lower picture is seen, right of it the upper one.
    page.evaluate(
        """() => { for (const [name, colour] of [["under", "rgb(255, 0, 0)"], ["over", "rgb(0, 0, 255)"]]) {
            const block = document.createElement("div"); block.style.background = colour;
            document.querySelector(`#${name} .canvas`).replaceChildren(block); } }"""
    )
    page.locator("#viewer").screenshot(path=str(tmp_path / "wipe.png"))
    shown = read_image(tmp_path / "wipe.png")
    row = shown[shown.shape[0] * 3 // 4]
    width = len(row)
    assert row[width // 8].tolist() == [255, 0, 0]
    assert row[width // 2].tolist() == [0, 0, 255]
    page.mouse.dblclick(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    places = page.evaluate(
        """() => [...document.querySelectorAll(".layer .canvas")].slice(0, 2)
            .map((each) => JSON.stringify(each.getBoundingClientRect()))"""
    )
    assert places[0] == places[1]
    assert state_of(page, "--zoom") == "4"
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + box["height"] / 2)
    page.mouse.up()
    assert float(state_of(page, "--x").rstrip("%")) == pytest.approx(-65, abs=1)


def test_everything_of_the_frame_by_keyboard(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    page.focus("#viewer")
    for key in ("ArrowRight", "ArrowRight", "PageUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.get_attribute("#viewer", "aria-valuenow") == "62"
    page.keyboard.press("Home")
    assert page.get_attribute("#viewer", "aria-valuenow") == "0"
    page.keyboard.press("+")
    assert state_of(page, "--zoom") == "1.5"
    page.keyboard.press("Shift+ArrowRight")
    assert float(state_of(page, "--x").rstrip("%")) == pytest.approx(-35)
    page.keyboard.press("0")
    assert (state_of(page, "--zoom"), state_of(page, "--x")) == ("1", "0%")
    before = preview_id(page)
    page.focus("#strip")
    assert page.get_attribute("#strip", "aria-valuenow") == "1.000"
    page.keyboard.press("ArrowRight")
    wait_for_next(page, before)
    assert page.get_attribute("#strip", "aria-valuenow") == "1.040"
    assert page.inner_text("#moment").startswith("0:01.04")


def test_the_tab_key_reaches_everything_that_acts(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
        if reached[-1] == "start":
            break
    assert [name for name in reached if name] == [
        "browse", "choose", "viewer", "mode", "zoom-out", "zoom-fit", "zoom-in", "show-depth", "strip",
        "preset", "budget", "model", "size", "measure", "start",
    ]  # fmt: skip
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, [tabindex], progress")]
            .filter((each) => each.checkVisibility())
            .filter((each) => !(each.ariaLabel || each.labels?.length || each.textContent.trim()))
            .filter((each) => !each.getAttribute("aria-labelledby"))
            .map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_the_dial_renews_the_preview_and_its_facts(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    before = preview_id(page)
    page.select_option("#model", "compact")
    wait_for_next(page, before)
    assert "100 %" in page.inner_text("#takes")
    before = preview_id(page)
    page.focus("#budget")
    page.keyboard.press("Home")
    wait_for_next(page, before)
    assert page.inner_text("#budget-words") == "10 % of the blocks"
    assert "100 %" not in page.inner_text("#takes")
    page.click("details:has(#command) summary")
    assert page.inner_text("#command") == "skipvsr upscale clip.mp4 clip-upscaled.mp4 --model compact --budget 0.1"
    before = preview_id(page)
    page.check("#presets input[value=best]")
    wait_for_next(page, before)
    assert page.input_value("#budget") == "100"
    before = preview_id(page)
    page.select_option("#size", "1080")
    wait_for_next(page, before)
    assert f"1620 {TIMES} 1080" in page.inner_text("#takes")
    page.check("#show-depth")
    assert page.is_visible("#legend")
    assert page.evaluate("document.querySelector('#depth img').naturalWidth") == 96


def test_the_model_is_chosen_by_the_file_and_the_reason_is_shown(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    before = preview_id(page)
    page.select_option("#model", "auto")
    wait_for_next(page, before)
    until(page, "() => document.querySelector('#model-about').textContent.includes(': x4; h264 at ')")
    assert page.inner_text("#model-about").startswith("compact")
    assert page.is_enabled("#budget")
    before = preview_id(page)
    page.select_option("#size", "x2")
    wait_for_next(page, before)
    until(page, "() => document.querySelector('#model-about').textContent.includes('-x2: x2; ')")
    assert page.is_enabled("#budget")
    assert f"192 {TIMES} 128" in page.inner_text("#takes")
    page.click("details:has(#command) summary")
    assert page.inner_text("#command") == "skipvsr upscale clip.mp4 clip-upscaled.mp4 --scale 2"


def test_the_film_can_be_measured_as_the_command_line_does(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    page.click("#measure")
    until(
        page,
        "() => document.querySelector('#takes').textContent.includes('measured on whole frames') "
        "|| document.querySelector('#takes').textContent.includes('this machine is busy')",
    )
    assert page.is_hidden("#measure")


def test_a_section_plays_in_step_with_bicubic(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    page.check("#modes input[value=section]")
    page.select_option("#section-length", "2")
    # From the middle of two seconds on there is one left.
    right = "document.querySelector('{}').getBoundingClientRect().right"
    assert page.evaluate(f"{right.format('#span')} <= {right.format('#strip')} + 1")
    page.focus("#strip")
    page.keyboard.press("Home")
    page.click("#veil button")
    until(page, "document.querySelectorAll('#viewer video').length === 2")
    until(page, "[...document.querySelectorAll('#viewer video')].every((video) => video.readyState >= 3)")
    page.focus("#viewer")
    page.keyboard.press(" ")
    until(page, "document.querySelector('#over video').currentTime > 0.3")
    page.keyboard.press(" ")
    until(
        page,
        """() => { const [one, two] = document.querySelectorAll('#viewer video');
            return one.paused && two.paused && Math.abs(one.currentTime - two.currentTime) < 0.02; }""",
    )
    page.evaluate(
        """(seek) => {
            const range = document.querySelector("#seek");
            range.value = seek;
            range.dispatchEvent(new Event("input"));
        }""",
        0.8,
    )
    until(
        page,
        "[...document.querySelectorAll('#viewer video')].every((video) => Math.abs(video.currentTime - 0.8) < 0.02)",
    )


def test_a_job_from_the_queue_to_the_downloaded_file(page: Page, clips: Path, tmp_path: Path):
    from skipvsr.upscale.job import upscale_video

    open_clip(page, clips / "clip.mp4")
    page.click("summary:has-text('Encoding')")
    page.select_option("#encoding", "ffv1")
    page.click("#start")
    page.wait_for_selector(".job[data-state=done]")
    assert f"50 frames, 384 {TIMES} 256" in page.inner_text(".job")
    with page.expect_download() as waiting:
        page.click(".job a:has-text('Download')")
    assert waiting.value.suggested_filename == "clip-upscaled.mkv"
    waiting.value.save_as(tmp_path / "got.mkv")
    upscale_video(clips / "clip.mp4", tmp_path / "direct.mkv", "bicubic", encoding=EncodeOptions(codec="ffv1"))
    with VideoReader(tmp_path / "got.mkv") as got, VideoReader(tmp_path / "direct.mkv") as direct:
        for one, two in zip(got, direct, strict=True):
            assert (one.pts, one.duration) == (two.pts, two.duration)
            assert np.array_equal(one.pixels, two.pixels)
    # The browser cannot play FFV1; the page says so, and makes a copy that it can.
    page.click(".job button:has-text('Play')")
    page.wait_for_selector("#veil button:has-text('Make a small copy')")
    assert "cannot play the result" in page.inner_text("#veil-words")
    page.click("#veil button")
    until(page, BOTH_SHOW)
    assert "small copy" in page.inner_text("#tag-right")
    page.click(".job button:has-text('Remove')")
    until(page, "!document.querySelector('.job')")


def test_a_result_plays_against_its_source(page: Page, clips: Path):
    open_clip(page, clips / "clip.mp4")
    page.click("#start")
    page.click(".job[data-state=done] button:has-text('Play')")
    until(page, BOTH_SHOW)
    assert page.inner_text("#tag-left").startswith("Source")
    sizes = page.evaluate("[...document.querySelectorAll('#viewer video')].map((video) => video.videoWidth)")
    assert sizes == [96, 384]


def test_the_queue_pauses_cancels_and_survives_the_server(page: Page, server: Server, clips: Path):
    open_clip(page, clips / "clip.mp4")
    page.select_option("#model", "compact")
    page.click("#start")
    page.click(".job button:has-text('Pause')")
    page.wait_for_selector(".job[data-state=paused]")
    page.select_option("#size", "1080")
    page.click("#start")
    page.wait_for_selector(".job[data-state=waiting]")
    server.kill()
    page.wait_for_selector("#offline", state="visible")
    server.start()
    page.wait_for_selector("#offline", state="hidden")
    page.wait_for_selector(".job:first-child[data-state=paused]")
    page.click(".job:first-child button:has-text('Resume')")
    page.wait_for_selector(".job:first-child[data-state=running] progress[value]")
    page.click(".job:last-child button:has-text('Cancel')")
    page.wait_for_selector(".job:last-child[data-state=cancelled]")
    page.wait_for_selector(".job:first-child[data-state=done]")
    assert page.is_visible(".job:last-child button:has-text('Try again')")


def test_two_pages_show_the_same(page: Page, browser: BrowserContext, server: Server, clips: Path):
    open_clip(page, clips / "clip.mp4")
    second = browser.new_page()
    second.goto(server.address)
    second.wait_for_selector(".source")
    until(second, "document.querySelector('#model').options.length > 1")
    second.evaluate("document.querySelector('#model').value = 'bicubic'")
    page.click("#start")
    second.wait_for_selector(".job")
    second.click("#start")
    wait_for(lambda: "in the queue already" in second.inner_text("#live") or second.locator(".job").count() > 1)
    assert second.locator(".job").count() == 1
    second.close()


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_words_can_be_read(page: Page, clips: Path, width: int, scheme: Any):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    open_clip(page, clips / "clip.mp4")
    page.click("#start")
    page.wait_for_selector(".job[data-state=done]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 20
    assert {words: ratio for words, ratio in contrasts.items() if ratio < 4.5} == {}


# Of each visible text, its contrast with what is painted behind it (WCAG 2.2), where that is a plain colour.
CONTRASTS = """() => {
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const found = {};
    for (const node of document.querySelectorAll("main *, header *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.checkVisibility() || node.closest(".viewer, .unseen, :disabled, option, fieldset:disabled")) continue;
        let behind = node;
        while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) < 1) behind = behind.parentElement;
        const one = light(parse(getComputedStyle(node).color));
        const two = light(parse(getComputedStyle(behind ?? document.body).backgroundColor));
        found[node.textContent.trim().slice(0, 40)] = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    }
    return found;
}"""
