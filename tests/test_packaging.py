"""What users get: one version, extras as documented, and a Dockerfile of files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_every_extra_is_documented_with_its_packages():
    text = (ROOT / "docs" / "install.md").read_text()
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `?([\w() ]+?)`? \|[^|]*\|([^|]*)\|[^|]*\|$", text, re.M)}
    documented = {name: set(packages.replace(" ", "").split(",")) for name, packages in rows.items()}
    extras = {"(none)": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for name, requirements in extras.items():
        packages = {re.split(r"[\[>=]", requirement)[0] for requirement in requirements} - {"skipvsr"}
        assert documented[name] == packages, name


def test_every_dependency_is_pinned():
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        for line in (ROOT / "requirements.lock").read_text().splitlines()
    }
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for requirement in requirements:
            assert re.split(r"[\[>=]", requirement)[0] in pinned | {"skipvsr"}, requirement


def test_the_filter_says_what_it_needs_where_vapoursynth_is_missing():
    code = "import sys; sys.modules['vapoursynth'] = None; import skipvsr.vapoursynth"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ConfigError: VapourSynth cannot be used from this Python" in done.stderr
    assert "skipvsr[vapoursynth]' needs Python 3.12 or later" in done.stderr


def test_the_dockerfile_copies_files_that_exist_and_are_not_ignored():
    copied = [
        name
        for line in re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(), re.M)
        for name in line.split()[:-1]
    ]
    assert {"pyproject.toml", "requirements.lock", "src", "scripts/docker_install.sh"} <= set(copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    assert set(copied) == kept
