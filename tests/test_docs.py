"""What the documents say of the project itself: names of tests, links, and tables made from data."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from skipvsr.video.images import read_image

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "src" / "skipvsr" / "weights").glob("*/README.md"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *CARDS])
TESTS = {
    name
    for path in (ROOT / "tests").glob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
}


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_named_tests_and_linked_files_exist(document: Path):
    text = document.read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= TESTS
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_code_that_the_paper_is_compared_with_exists():
    """Names after a module in docs/paper.md are defined in that module."""
    text = (ROOT / "docs" / "paper.md").read_text()
    found = re.findall(r"`([\w/]+\.py)`: ((?:`\w[\w.]*`(?:, )?)+)", text)
    assert len(found) >= 10
    for module, names in found:
        source = (ROOT / "src" / "skipvsr" / module).read_text()
        for name in re.findall(r"`([\w.]+)`", names):
            assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", source), f"{module} has no {name}"


def test_the_page_of_the_demo_shows_images_pixel_for_pixel(tmp_path: Path):
    page = load_script("demo_page")
    random = np.random.default_rng(0)
    images = {name: random.integers(0, 255, (40, 150, 3), np.uint8) for name in ("bicubic", "full", "half", "depth")}
    row = page.Row("a scene", images, {"full": 30.0})
    page.draw_page(tmp_path / "page.png", [row, row], half=0.5)
    drawn = read_image(tmp_path / "page.png")
    top = page.TITLE_PX + page.LABEL_PX
    assert drawn.shape[0] == 2 * (top + 40) + page.LEGEND_PX
    for repeat in range(2):
        for index, image in enumerate(images.values()):
            left = page.GAP_PX + index * (150 + page.GAP_PX)
            above = repeat * (top + 40) + top
            assert (drawn[above : above + 40, left : left + 150] == image).all()
    labels = drawn[page.TITLE_PX : top, page.GAP_PX :]
    assert labels.min() < 100  # something is written there


def test_tables_of_results_are_what_the_data_says():
    script = load_script("write_results")
    text = script.RESULTS.read_text()
    assert script.filled(text) == text
    assert len(re.findall(r"<!-- (\w+) -->", text)) == 2 * 8
    assert (
        script.filled("<!-- table2 -->\nold\n<!-- end -->") == f"<!-- table2 -->\n{script.table('table2')}<!-- end -->"
    )
    assert "| 0 / 0 | 100% / 100% |" in script.table("table2")


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.parent.name)
def test_every_card_has_its_pictures(card: Path):
    """Of clean clips and two qualities of H.264, or blurred; small, and of the size that the script draws."""
    script = load_script("write_cards")
    name = card.parent.name
    assert card.read_text().count("## Side by side") == 1
    height = 2 * script.ENLARGED * script.HEIGHT + script.GAP
    width = 3 * script.ENLARGED * script.WIDTH + 2 * script.GAP
    for kind in ("bd", "bi") if name.endswith("-bd") else ("bi", "h264-23", "h264-28"):
        picture = script.figure(name, kind)
        assert f"({Path('../../../..') / picture.relative_to(ROOT)})" in card.read_text()
        assert picture.stat().st_size <= 150_000
        assert read_image(picture).shape == (height, width, 3)


def test_pictures_take_the_place_of_older_ones():
    script = load_script("write_cards")
    card = "# name\n\n## What it reaches\n\ntable\n\n## The dial\n\nthresholds\n"
    once = script.with_pictures(card, "first")
    assert once == (
        "# name\n\n## What it reaches\n\ntable\n\n<!-- pictures -->\nfirst\n<!-- end -->\n\n## The dial\n\nthresholds\n"
    )
    assert script.with_pictures(once, "second") == once.replace("first", "second")
    without = script.with_pictures("# name\n\ntable\n", "first")
    assert without == "# name\n\ntable\n\n<!-- pictures -->\nfirst\n<!-- end -->\n"
    assert script.with_pictures(without, "second") == without.replace("first", "second")
