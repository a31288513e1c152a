"""What the documents say of the project itself: names of tests, links, and tables made from data."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
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
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_tests_and_linked_files_exist(document: Path):
    text = document.read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named <= TESTS
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_tables_of_results_are_what_the_data_says():
    script = load_script("write_results")
    text = script.RESULTS.read_text()
    assert script.filled(text) == text
    assert len(re.findall(r"<!-- (\w+) -->", text)) == 2 * 7
    assert (
        script.filled("<!-- table2 -->\nold\n<!-- end -->") == f"<!-- table2 -->\n{script.table('table2')}<!-- end -->"
    )
    assert "| 0 / 0 | 100% / 100% |" in script.table("table2")
