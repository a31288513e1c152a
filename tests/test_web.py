"""The page's server: what it does, and whom it refuses."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import psutil
import pytest

pytest.importorskip("starlette", reason="needs skipvsr[web]")

from skipvsr.checkpoints.load import packaged_names
from skipvsr.errors import ConfigError, OutputError
from skipvsr.upscale.choose import choose_model
from skipvsr.upscale.estimate import estimate
from skipvsr.upscale.job import upscale_video
from skipvsr.upscale.size import OutputSize
from skipvsr.video.images import read_image
from skipvsr.video.open import probe, read_clip
from skipvsr.video.read import VideoReader
from skipvsr.video.survey import varies
from skipvsr.video.write import EncodeOptions
from skipvsr.web.command import JobSettings, arguments, command_line, output_name
from skipvsr.web.jobs import Job, Kind
from skipvsr.web.settings import Limits, ServeOptions
from skipvsr.web.store import Store, plain_name
from tests.media import make_video, picture
from tests.web import Server, wait_for

TOKEN = "open-sesame-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, with things in it that must not be seen."""
    outer = tmp_path_factory.mktemp("house")
    make_video(outer / "private.mp4", 3)
    root = outer / "films"
    (root / "holiday").mkdir(parents=True)
    make_video(root / "a film.mp4", 12, audio_codec="aac", audio_seconds=0.4)
    make_video(root / "holiday" / "beach 10.mkv", 4)
    make_video(root / "holiday" / "beach 2.mkv", 4)
    (root / "notes.txt").write_text("no video")
    (root / "out.mp4").symlink_to(outer / "private.mp4")
    (root / "away").symlink_to(outer)
    (root / ".hidden.mp4").write_bytes((root / "a film.mp4").read_bytes())
    return root


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("work") / "work", "--root", str(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def source(server: Server, folder: Path) -> dict:
    return server.upload(folder / "a film.mp4", name="ein Film <1>.mp4")


def test_an_upload_says_what_is_in_it(source: dict):
    assert source["name"] == "ein Film 1.mp4"
    found = source["found"]
    assert (found["width"], found["height"], found["frames"], found["codec"]) == (48, 32, 12, "h264")
    assert found["seconds"] == pytest.approx(0.48)
    assert [sound["codec"] for sound in found["sounds"]] == ["aac"]
    assert (found["interlaced"], found["variable_rate"], found["bits"]) == (False, False, 8)
    assert "path" not in json.dumps(source)


def test_what_is_no_video_is_refused_in_the_words_of_the_command_line(server: Server):
    answer = server.ask("PUT", "/api/uploads?name=x.mp4", b"this is no video" * 100)
    assert answer.status == 422
    assert "x.mp4 cannot be read as a video" in answer.json["error"]
    assert str(server.work) not in answer.json["error"]
    assert server.ask("PUT", "/api/uploads?name=x.mp4", b"").json["error"] == "the upload is empty; choose a video file"
    assert [path for path in (server.work / "uploads").iterdir() if path.suffix != ".mp4"] == []


def test_a_preview_shows_the_chosen_frame_and_facts(server: Server, source: dict, folder: Path, tmp_path: Path):
    frames = read_clip(folder / "a film.mp4")
    asked = {"source": source["id"], "seconds": 5 / 25, "settings": {"model": "bicubic", "height": 64}}
    facts = server.ok("POST", "/api/previews", asked)
    assert facts["size"] == [96, 64]
    assert facts["output_size"] == [96, 64]
    assert facts["region"] == [0, 0, 1, 1]
    assert facts["codec"] == "libx264"
    assert facts["film_seconds"] == pytest.approx(12 * facts["seconds_per_frame"], rel=0.6)
    (tmp_path / "p.png").write_bytes(server.ask("GET", f"/api/previews/{facts['id']}/result.png").body)
    shown = read_image(tmp_path / "p.png")
    # The frame that is shown at that time and no other: its neighbours are further away.
    small = shown.reshape(32, 2, 48, 2, 3).mean((1, 3))
    errors = [np.abs(small - frame).mean() for frame in frames]
    assert int(np.argmin(errors)) == 5


def test_the_dial_and_the_depth_of_tiles(server: Server, source: dict, tmp_path: Path):
    whole = server.ok("POST", "/api/previews", {"source": source["id"], "seconds": 0.2, "settings": {}})
    less = server.ok("POST", "/api/previews", {"source": source["id"], "seconds": 0.2, "settings": {"budget": 0.2}})
    assert whole["active_ratio"] == 1
    assert whole["depth_range"] == [1, 1]
    assert less["active_ratio"] < 0.7
    assert less["depth_range"][0] < 1
    (tmp_path / "d.png").write_bytes(server.ask("GET", f"/api/previews/{whole['id']}/depth.png").body)
    # All blocks everywhere: the yellow end of the scale.
    assert read_image(tmp_path / "d.png").reshape(-1, 3).tolist() == [[253, 231, 37]] * (48 * 32)
    assert "--budget 0.2" in less["command"]


def test_the_model_is_chosen_as_on_the_command_line(server: Server, source: dict, folder: Path):
    asked: list[dict[str, Any]] = [{}, {"scale": 2}, {"height": 64}, {"budget": 0.5}]
    for settings in asked:
        facts = server.ok("POST", "/api/previews", {"source": source["id"], "seconds": 0, "settings": settings})
        size = OutputSize(height=settings.get("height"))
        choice = choose_model(folder / "a film.mp4", scale=settings.get("scale"), size=size)
        assert (facts["model"], facts["model_reason"]) == (choice.name, choice.reason)
    models = server.ok("GET", "/api/state")["models"]
    assert set(models) == {"auto", "bicubic", *packaged_names()}
    assert all(model["about"] for model in models.values())


def test_the_time_and_size_of_a_film_are_those_of_a_dry_run(server: Server, source: dict, folder: Path):
    asked = {"source": source["id"], "seconds": 0, "settings": {"model": "bicubic"}}
    found = server.ok("POST", "/api/estimates", asked)
    assert found["file_bytes"] == estimate(folder / "a film.mp4", folder / "out.mp4", "bicubic").file_bytes
    assert found["seconds"] == pytest.approx(12 * found["seconds_per_frame"])
    assert server.ok("POST", "/api/previews", asked)["film_bytes"] == found["file_bytes"]


def test_a_section_of_a_film_that_mp4_does_not_hold(server: Server, folder: Path, tmp_path: Path):
    """It is there to be looked at in a browser: its sound becomes AAC, and subtitles stay out."""
    make_video(tmp_path / "words.mkv", 25, audio_codec="flac", audio_seconds=1, subtitles=[(0, "words")])
    source = server.upload(tmp_path / "words.mkv")
    settings = {"model": "bicubic", "start": 0.0, "end": 0.4}
    job = server.ok("POST", "/api/jobs", {"source": source["id"], "kind": "section", "settings": settings})
    job = server.wait_for_job(job["id"], "done", "failed")
    assert (job["state"], job["message"]) == ("done", "")
    (tmp_path / "section.mp4").write_bytes(server.ask("GET", f"/media/{job['id']}").body)
    info = probe(tmp_path / "section.mp4")
    assert (info.audio_streams, info.subtitle_streams) == (1, 0)


def test_frames_of_the_filmstrip_follow_the_time(server: Server, source: dict, folder: Path, tmp_path: Path):
    frames = read_clip(folder / "a film.mp4")
    for index, frame in ((0, 0), (7, 5), (15, 11)):
        answer = server.ask("GET", f"/api/sources/{source['id']}/thumbnails/{index}")
        assert answer.headers["content-type"] == "image/jpeg"
        (tmp_path / "t.jpg").write_bytes(answer.body)
        shown = read_image(tmp_path / "t.jpg").astype(float)
        errors = [np.abs(shown - each).mean() for each in frames]
        assert abs(int(np.argmin(errors)) - frame) <= 1
    assert server.ask("GET", f"/api/sources/{source['id']}/thumbnails/16").status == 404


def test_a_job_gives_what_the_command_line_gives(server: Server, source: dict, folder: Path, tmp_path: Path):
    settings = {"model": "bicubic", "encoding": "ffv1", "height": 64}
    asked = {"source": source["id"], "settings": settings}
    job = server.ok("POST", "/api/jobs", asked)
    # A second tab that starts the same gets the same.
    assert server.ok("POST", "/api/jobs", asked)["id"] == job["id"]
    done = server.wait_for_job(job["id"], "done", "failed")
    assert (done["state"], done["message"]) == ("done", "")
    assert (done["report"]["frames"], done["report"]["output_size"]) == (12, [96, 64])
    assert (
        done["command"]
        == "skipvsr upscale 'ein Film 1.mp4' 'ein Film 1-upscaled.mkv' --model bicubic --height 64 --codec ffv1"
    )
    got = server.ask("GET", f"/media/{job['id']}?download")
    assert got.headers["content-type"] == "application/octet-stream"
    assert quote("ein Film 1-upscaled.mkv") in got.headers["content-disposition"]
    direct = tmp_path / "direct.mkv"
    words = arguments(folder / "a film.mp4", direct, JobSettings(**settings))
    subprocess.run([sys.executable, "-m", "skipvsr", *words, "--quiet"], check=True)
    (tmp_path / "got.mkv").write_bytes(got.body)
    assert_same_video(tmp_path / "got.mkv", direct)
    assert server.ask("GET", f"/api/jobs/{job['id']}/snapshot").body.startswith(b"\xff\xd8")


def test_a_section_comes_with_its_bicubic_counterpart(server: Server, source: dict, tmp_path: Path):
    settings = {"model": "bicubic", "start": 0.08, "end": 0.28}
    job = server.ok("POST", "/api/jobs", {"source": source["id"], "kind": "section", "settings": settings})
    server.wait_for_job(job["id"], "done")
    for path in (f"/media/{job['id']}", f"/api/jobs/{job['id']}/reference"):
        answer = server.ask("GET", path)
        assert answer.headers["content-type"] == "video/mp4"
        (tmp_path / "s.mp4").write_bytes(answer.body)
        assert read_clip(tmp_path / "s.mp4").shape == (5, 128, 192, 3)
    too_long = {"source": source["id"], "kind": "section", "settings": {"start": 0, "end": 60}}
    assert "at most 10 s" in server.ask("POST", "/api/jobs", too_long).json["error"]
    server.ok("DELETE", f"/api/jobs/{job['id']}")
    assert not (server.work / "results" / job["id"]).exists()


def test_what_browsers_cannot_play_can_be_copied(server: Server, tmp_path: Path):
    deep = make_video(
        tmp_path / "deep.mkv", [picture(i, 96, 64) for i in range(5)], codec="libx265", pixel_format="yuv444p10le"
    )
    source = server.upload(deep)
    assert source["found"]["bits"] == 10
    job = server.ok("POST", "/api/copies", {"of": source["id"]})
    server.wait_for_job(job["id"], "done")
    (tmp_path / "copy.mp4").write_bytes(server.ask("GET", f"/media/{job['id']}").body)
    with VideoReader(tmp_path / "copy.mp4") as reader:
        assert (reader.info.pixel_format, reader.info.width, reader.info.height) == ("yuv420p", 96, 64)
        assert [frame.pts * frame.time_base for frame in reader] == [Fraction(i, 25) for i in range(5)]


def test_media_come_in_the_parts_that_players_ask_for(server: Server, source: dict, folder: Path):
    whole = (folder / "a film.mp4").read_bytes()
    part = server.ask("GET", f"/media/{source['id']}", headers={"Range": "bytes=100-299"})
    assert (part.status, part.body) == (206, whole[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole)}"
    assert server.ask("GET", f"/media/{source['id']}", headers={"Range": "bytes=999999999-"}).status == 416
    assert server.ask("HEAD", f"/media/{source['id']}").headers["content-length"] == str(len(whole))


def test_jobs_wait_pause_move_and_go(server: Server, source: dict):
    def start(height: int) -> str:
        settings = {"model": "bicubic", "height": height}
        return server.ok("POST", "/api/jobs", {"source": source["id"], "settings": settings})["id"]

    first = start(66)
    server.ok("POST", f"/api/jobs/{first}/pause")
    second, third = start(68), start(70)
    # What is paused holds back what stands behind it: the machine rests.
    assert [server.job(id)["state"] for id in (first, second, third)] == ["paused", "waiting", "waiting"]
    server.ok("POST", f"/api/jobs/{third}/up")
    order = [job["id"] for job in server.ok("GET", "/api/state")["jobs"] if job["id"] in (first, second, third)]
    assert order == [first, third, second]
    server.ok("POST", f"/api/jobs/{second}/cancel")
    assert "cannot be paused" in server.ask("POST", f"/api/jobs/{second}/pause").json["error"]
    server.ok("POST", f"/api/jobs/{first}/resume")
    for id in (first, third):
        server.wait_for_job(id, "done")
    server.ok("POST", f"/api/jobs/{second}/retry")
    server.wait_for_job(second, "done")
    for id in (first, second, third):
        server.ok("DELETE", f"/api/jobs/{id}")
    assert not [job for job in server.ok("GET", "/api/state")["jobs"] if job["id"] in (first, second, third)]


def test_a_failure_is_told_as_on_the_command_line(server: Server, folder: Path, tmp_path: Path):
    data = (folder / "a film.mp4").read_bytes()
    source = server.upload(_written(tmp_path / "vanishes.mp4", data))
    uploaded = max((server.work / "uploads").glob("*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    held = server.ok("POST", "/api/jobs", {"source": source["id"], "settings": {"model": "bicubic"}})
    server.ok("POST", f"/api/jobs/{held['id']}/cancel")
    uploaded.unlink()
    server.ok("POST", f"/api/jobs/{held['id']}/retry")
    failed = server.wait_for_job(held["id"], "failed", "done")
    assert failed["message"] == "vanishes.mp4 does not exist; check the path"
    server.ok("DELETE", f"/api/jobs/{held['id']}")


def test_a_killed_server_goes_on_with_its_job(folder: Path, tmp_path: Path):
    # Long enough to be killed when its first part is finished and others are not.
    film = make_video(tmp_path / "film.mkv", 1500, codec="ffv1", options={})
    settings = {"encoding": "ffv1", "model": "bicubic"}
    server = Server(tmp_path / "work")
    server.start()
    try:
        source = server.upload(film)
        job = server.ok("POST", "/api/jobs", {"source": source["id"], "settings": settings})
        manifest = tmp_path / "work" / "results" / job["id"] / f".{job['result_name']}.skipvsr" / "manifest.json"
        wait_for(lambda: manifest.exists() or server.job(job["id"])["state"] == "done")
        pid = json.loads((tmp_path / "work" / "jobs.json").read_text())[0]["process"][0]
        server.kill()
        assert manifest.exists(), "it was done before it could be killed"
        server.start()
        done = server.wait_for_job(job["id"], "done", "failed")
        assert done["state"] == "done", done["message"]
        assert not psutil.pid_exists(pid)
        assert done["report"]["frames"] == 1500
        assert done["report"]["resumed_at"] > 0
        (tmp_path / "got.mkv").write_bytes(server.ask("GET", f"/media/{job['id']}").body)
    finally:
        assert server.stop() == 0
    upscale_video(film, tmp_path / "direct.mkv", "bicubic", encoding=EncodeOptions(codec="ffv1"))
    assert_same_video(tmp_path / "got.mkv", tmp_path / "direct.mkv")


def test_only_what_was_allowed_is_listed_and_opened(server: Server, folder: Path):
    roots = server.ok("GET", "/api/folders")
    assert [entry["name"] for entry in roots["folders"]] == ["films"]
    listing = server.ok("GET", f"/api/folders/{roots['folders'][0]['id']}")
    assert [entry["name"] for entry in listing["folders"]] == ["holiday"]
    assert [entry["name"] for entry in listing["files"]] == ["a film.mp4"]
    holiday = server.ok("GET", f"/api/folders/{listing['folders'][0]['id']}")
    assert [entry["name"] for entry in holiday["files"]] == ["beach 2.mkv", "beach 10.mkv"]
    assert [entry["name"] for entry in holiday["parents"]] == ["films"]
    assert str(folder) not in json.dumps([roots, listing, holiday])
    picked = server.ok("POST", "/api/sources", {"file": holiday["files"][0]["id"]})
    assert picked["found"]["container"].startswith("matroska")
    assert server.ok("POST", "/api/sources", {"file": holiday["files"][0]["id"]})["id"] == picked["id"]
    server.ok("DELETE", f"/api/sources/{picked['id']}")
    assert (folder / "holiday" / "beach 2.mkv").exists()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../routes.py",
        "/static/%2e%2e/routes.py",
        "/static/..%2froutes.py",
        "/static//etc/passwd",
        "/media/..%2f..%2fsecret",
        "/media/../token",
        "/api/folders/..%2f..",
        "/api/folders/%2fetc",
        "/api/sources/../../secret",
        "/api/jobs/x/../../../secret",
    ],
)
def test_no_path_leads_out(server: Server, path: str):
    answer = server.ask("GET", path)
    assert answer.status in (404, 405)
    assert b"root:" not in answer.body
    assert (server.work / "secret").read_bytes() not in answer.body


def test_the_name_of_an_upload_is_only_a_name(server: Server, folder: Path):
    data = (folder / "a film.mp4").read_bytes()
    for given, shown in (
        ("../../evil.mp4", "evil.mp4"),
        ("C:\\x\\y.mov", "y.mov"),
        (".bashrc", "bashrc"),
        ("a\nb\0.mp4", "ab.mp4"),
        ("..", "video"),
    ):
        source = server.ok("PUT", f"/api/uploads?name={quote(given)}", data)
        assert source["name"] == shown
        server.ok("DELETE", f"/api/sources/{source['id']}")
    assert not (folder.parent / "evil.mp4").exists()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("{own}", 200),
        ("localhost:{port}", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:{port}", 403),
        ("192.168.1.5:{port}", 403),
        ("{own}@evil.example", 403),
        ("", 403),
    ],
)
def test_forged_hosts_are_refused(server: Server, host: str, status: int):
    name = host.format(own=server.netloc, port=server.port)
    assert server.ask("GET", "/", headers={"Host": name}, as_page=False).status == status


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://{own}"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "http://{own}", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_sites_change_nothing(server: Server, source: dict, headers: dict[str, str]):
    headers = {name: value.format(own=server.netloc) for name, value in headers.items()}
    for method, path in (
        ("POST", "/api/jobs"),
        ("DELETE", f"/api/sources/{source['id']}"),
        ("PUT", "/api/uploads?name=a.mp4"),
    ):
        answer = server.ask(method, path, {"source": source["id"]}, headers, as_page=False)
        assert answer.status == 403
    assert any(each["id"] == source["id"] for each in server.ok("GET", "/api/state")["sources"])


def test_other_sites_read_nothing_but_may_link_to_the_page(server: Server, source: dict):
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    for path in ("/api/state", "/api/events", f"/media/{source['id']}", "/static/main.js"):
        assert server.ask("GET", path, headers=foreign, as_page=False).status == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    page = server.ask("GET", "/", headers=link, as_page=False)
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (page.headers["x-content-type-options"], page.headers["x-frame-options"]) == ("nosniff", "DENY")
    assert "access-control-allow-origin" not in page.headers


def test_the_page_names_no_other_host(server: Server):
    """Nothing that the page consists of is, or asks for anything, elsewhere."""
    static = Path(__file__).parents[1] / "src" / "skipvsr" / "web" / "static"
    for path in static.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path.name
        assert server.ask("GET", f"/static/{path.name}").body == path.read_bytes()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"settings": {"budget": 2}}, "the budget is 2; it must be above 0"),
        ({"settings": {"budget": "half"}}, "the setting budget is 'half'; it must be a number"),
        ({"settings": {"height": 7}}, "the height is 7"),
        ({"settings": {"height": True}}, "must be a number"),
        ({"settings": {"model": "../../etc"}}, "there is no model '../../etc'; choose one of auto, base"),
        ({"settings": {"scale": 3}}, "the scale is 3; it must be 2 or 4"),
        ({"settings": {"audio": "mp3"}}, "choose one of aac"),
        ({"settings": {"subtitles": 1}}, "it must be true or false"),
        ({"settings": {"model": "/tmp"}}, "there is no model '/tmp'"),
        ({"settings": {"output": "/tmp/x"}}, "there is no setting 'output'"),
        ({"settings": {"encoding": "rawvideo"}}, "choose one of h264"),
        ({"settings": {"encoding": "ffv1", "crf": 3}}, "FFV1 has none"),
        ({"settings": [1]}, "must be an object"),
        ({"kind": "copy"}, "kind must be"),
    ],
)
def test_wrong_settings_are_named(server: Server, source: dict, body: dict, message: str):
    answer = server.ask("POST", "/api/jobs", {"source": source["id"], **body})
    assert answer.status in (400, 422)
    assert message in answer.json["error"]


def test_requests_that_are_no_requests(server: Server, source: dict):
    assert server.ask("POST", "/api/jobs", b"{}", {"Content-Type": "text/plain"}).status == 415
    assert server.ask("POST", "/api/jobs", b"{", {"Content-Type": "application/json"}).status == 400
    assert server.ask("POST", "/api/jobs", b"[" * 60_000, {"Content-Type": "application/json"}).status == 400
    assert server.ask("POST", "/api/jobs", b" " * 70_000, {"Content-Type": "application/json"}).status == 413
    assert server.ask("POST", "/api/jobs", {"source": 5}).status == 400
    assert server.ask("POST", "/api/jobs", {"source": "0" * 24}).status == 404
    nan = b'{"source": "%s", "seconds": NaN}' % source["id"].encode()
    assert server.ask("POST", "/api/previews", nan, {"Content-Type": "application/json"}).status == 400
    assert server.ask("POST", "/api/jobs/nothing/explode").status == 404


def test_hundreds_of_silent_connections_leave_the_page_alone(server: Server):
    silent = [socket.create_connection((server.host, server.port)) for _ in range(300)]
    try:
        assert server.ask("GET", "/").status == 200
        assert server.ask("GET", "/api/state").status == 200
    finally:
        for connection in silent:
            connection.close()


def test_events_tell_of_changes(server: Server, source: dict):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    try:
        connection.request("GET", "/api/events", headers={"Host": server.netloc})
        response = connection.getresponse()
        assert response.getheader("content-type", "").startswith("text/event-stream")

        def event() -> dict:
            while not (line := response.readline()).startswith(b"data:"):
                assert line, "the stream ended"
            return json.loads(line[5:])

        assert source["id"] in [each["id"] for each in event()["sources"]]
        settings = {"model": "bicubic", "height": 72}
        job = server.ok("POST", "/api/jobs", {"source": source["id"], "settings": settings})
        while next((each["state"] for each in event()["jobs"] if each["id"] == job["id"]), None) != "done":
            pass
    finally:
        connection.close()


def test_a_token_keeps_others_out_and_people_apart(folder: Path, tmp_path: Path):
    with Server(tmp_path / "work", "--host", "0.0.0.0", "--token", TOKEN, "--root", str(folder)) as server:
        server.host, server.netloc = "127.0.0.1", f"127.0.0.1:{server.port}"
        assert server.address.endswith(f"?token={TOKEN}")
        assert server.ask("GET", "/").status == 401
        for path in ("/api/state", "/static/main.js", "/api/events"):
            assert server.ask("GET", path).status == 401
        assert server.ask("GET", "/?token=wrong-token").status == 401
        forged = {"Cookie": f"skipvsr_{server.port}=local.{'0' * 64}"}
        assert server.ask("GET", "/api/state", headers=forged).status == 401
        server.enter(TOKEN)
        anna = server.upload(folder / "a film.mp4")
        job = server.ok("POST", "/api/jobs", {"source": anna["id"], "settings": {"model": "bicubic"}})
        server.leave()
        server.enter(TOKEN)  # somebody else in the house
        assert server.ok("GET", "/api/state")["sources"] == []
        assert server.ok("GET", "/api/state")["jobs"] == []
        for method, path in (
            ("GET", f"/media/{anna['id']}"), ("GET", f"/media/{job['id']}"), ("DELETE", f"/api/jobs/{job['id']}"),
            ("POST", f"/api/jobs/{job['id']}/cancel"), ("DELETE", f"/api/sources/{anna['id']}"),
        ):  # fmt: skip
            assert server.ask(method, path).status == 404
        # A name that was made to point here.
        assert server.ask("GET", "/", headers={"Host": "evil.example"}).status == 403
    assert "--host" not in (tmp_path / "work" / "secret").read_text()


def test_uploads_and_disk_are_bounded(folder: Path, tmp_path: Path):
    data = (folder / "a film.mp4").read_bytes()
    small = f"{(len(data) + 50) / (1 << 30):.12f}"
    with Server(
        tmp_path / "work", "--max-upload", small, "--max-disk", f"{2.5 * len(data) / (1 << 30):.12f}", "--max-jobs", "1"
    ) as server:
        refused = server.ask("PUT", "/api/uploads?name=a.mp4", data + b"0" * 100)
        assert (refused.status, "larger than" in refused.json["error"]) == (422, True)
        # Without a length, as long as somebody likes.
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        endless = iter([data, *[b"0" * 65536] * 10_000])
        headers = {"Origin": f"http://{server.netloc}", "Transfer-Encoding": "chunked"}
        try:
            connection.request("PUT", "/api/uploads?name=a.mp4", endless, headers, encode_chunked=True)
            assert connection.getresponse().status == 422
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server did not read on
        finally:
            connection.close()
        wait_for(lambda: not list((tmp_path / "work" / "uploads").iterdir()))
        first = server.upload(_written(tmp_path / "b.mp4", data))
        second = server.upload(_written(tmp_path / "b.mp4", data))
        full = server.ask("PUT", "/api/uploads?name=c.mp4", data)
        assert (full.status, "which is what it may take" in full.json["error"]) == (507, True)
        server.ok("DELETE", f"/api/sources/{first['id']}")
        job = server.ok("POST", "/api/jobs", {"source": second["id"], "settings": {"budget": 0.3}})
        more = server.ask("POST", "/api/jobs", {"source": second["id"], "settings": {"budget": 0.4}})
        assert (more.status, "as many as can be" in more.json["error"]) == (422, True)
        used = server.ask("DELETE", f"/api/sources/{second['id']}")
        assert (used.status, "needed by a job" in used.json["error"]) == (422, True)
        server.ok("POST", f"/api/jobs/{job['id']}/cancel")


def test_an_upload_that_is_broken_off_leaves_nothing(server: Server):
    before = set((server.work / "uploads").iterdir())
    with socket.create_connection((server.host, server.port)) as connection:
        head = ["PUT /api/uploads?name=a.mp4 HTTP/1.1", f"Host: {server.netloc}", f"Origin: http://{server.netloc}"]
        head += ["Content-Length: 1000000", "", ""]
        connection.sendall("\r\n".join(head).encode() + b"0" * 5000)
        wait_for(lambda: set((server.work / "uploads").iterdir()) - before)
    wait_for(lambda: set((server.work / "uploads").iterdir()) == before)
    assert set((server.work / "uploads").iterdir()) == before


def test_two_tabs_that_start_the_same_job_have_one(server: Server, source: dict):
    asked = {"source": source["id"], "settings": {"model": "bicubic", "height": 74}}
    with ThreadPoolExecutor(8) as tabs:
        ids = {answer["id"] for answer in tabs.map(lambda _: server.ok("POST", "/api/jobs", asked), range(8))}
    assert len(ids) == 1
    server.wait_for_job(ids.pop(), "done")


def test_one_server_to_a_work_folder(server: Server):
    second = subprocess.run(
        [sys.executable, "-m", "skipvsr", "serve", "--work", str(server.work), "--port", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "another 'skipvsr serve' uses" in second.stderr


def test_a_taken_port_is_named(server: Server, tmp_path: Path):
    second = subprocess.run(
        [sys.executable, "-m", "skipvsr", "serve", "--work", str(tmp_path / "w"), "--port", str(server.port)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert second.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {server.port}" in second.stderr


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path / "work", Limits())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 29}))
    with pytest.raises(OutputError, match="the disk is nearly full"):
        store.check_room()
    store.close()


def test_options_that_cannot_be(tmp_path: Path):
    with pytest.raises(ConfigError, match="is no folder"):
        ServeOptions(tmp_path, roots=(tmp_path / "nothing",))
    with pytest.raises(ConfigError, match="too short"):
        ServeOptions(tmp_path, token="short")
    assert ServeOptions(tmp_path).local
    assert ServeOptions(tmp_path, host="::1").local
    assert not ServeOptions(tmp_path, host="0.0.0.0").local


def test_a_file_that_became_a_link_leads_nowhere(server: Server, folder: Path):
    film = folder / "swapped.mp4"
    film.write_bytes((folder / "a film.mp4").read_bytes())
    root = server.ok("GET", "/api/folders")["folders"][0]["id"]
    entry = next(each for each in server.ok("GET", f"/api/folders/{root}")["files"] if each["name"] == film.name)
    source = server.ok("POST", "/api/sources", {"file": entry["id"]})
    film.unlink()
    film.symlink_to(folder.parent / "private.mp4")
    assert server.ask("GET", f"/media/{source['id']}").status == 404
    assert server.ask("POST", "/api/sources", {"file": entry["id"]}).status == 422
    job = server.ok("POST", "/api/jobs", {"source": source["id"], "settings": {"model": "bicubic"}})
    assert server.wait_for_job(job["id"], "failed", "done")["message"] == "swapped.mp4 is in no folder that may be read"
    server.ok("DELETE", f"/api/jobs/{job['id']}")
    server.ok("DELETE", f"/api/sources/{source['id']}")
    film.unlink()


def test_the_command_line_that_is_shown():
    settings = JobSettings(budget=0.5, height=1080, encoding="h265", crf=20, start=1.5, end=4)
    line = command_line("my film.mp4", output_name("my film.mp4", settings, streams=True), settings)
    assert line == (
        "skipvsr upscale 'my film.mp4' 'my film-upscaled-part.mp4' "
        "--budget 0.5 --height 1080 --codec libx265 --crf 20 "
        "--start 1.5 --end 4"
    )
    assert command_line("-x.mp4", "o.mp4", JobSettings()) == "skipvsr upscale ./-x.mp4 o.mp4"
    settings = JobSettings(model="compact-x2", audio="aac", subtitles=False)
    line = command_line("a.wmv", output_name("a.wmv", settings, streams=True), settings)
    assert line == "skipvsr upscale a.wmv a-upscaled.mkv --model compact-x2 --audio aac --no-subtitles"
    assert command_line("a.mp4", "o.mp4", JobSettings(scale=2)) == "skipvsr upscale a.mp4 o.mp4 --scale 2"
    assert output_name("a.avi", JobSettings(), streams=False) == "a-upscaled.mp4"
    assert output_name("a.webm", JobSettings(), streams=True) == "a-upscaled.mkv"
    assert output_name("\u6620" * 80 + ".mp4", JobSettings(), streams=True) == "\u6620" * 53 + "-upscaled.mp4"


def test_advice_about_sound_is_in_the_words_of_the_page(tmp_path: Path):
    folder = tmp_path / "results"
    film = Path("a.wmv")
    job = Job("1", "me", Kind.FILM, "2", film, "a.wmv", folder, folder / "a-upscaled.mkv", JobSettings())
    said = ".mkv files cannot hold stream 1 of a.wmv (audio, wmav2); convert its sound with --audio aac (or opus, flac)"
    assert job.in_words(said).endswith("(audio, wmav2); choose another sound under Encoding, and start it again")


def test_names_are_made_plain():
    assert plain_name("x" * 300 + ".mkv") == "x" * 110 + ".mkv"
    assert plain_name("\u202e.mp4") == "mp4"


def test_variable_rates_are_seen_through_rounding():
    base = Fraction(1, 1000)
    assert not varies([0, 33, 67, 100, 133, 167], base)
    assert varies([0, 33, 67, 167, 200], base)
    assert not varies([0], base)
    assert not varies([512 * i for i in (0, 2, 1, 4, 3)], Fraction(1, 12800))


def assert_same_video(one: Path, two: Path) -> None:
    """Every frame the same, to the bit, at the same time; and the same sound, but for the container's random numbers."""
    assert packets(one) == packets(two)


def packets(path: Path) -> list[tuple[int, int | None, int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.stream_index, packet.pts, packet.duration, bytes(packet)) for packet in container.demux()]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
