"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The version that is installed; of sources in a folder, that they are sources."""
    try:
        return version("skipvsr")
    except PackageNotFoundError:
        return "of sources that are not installed"
