"""A browser for the tests of pages: one process for a file of tests, and no complaint of a page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Chromium


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(running: Chromium) -> Iterator[Chromium]:
    running.size(1280, 900)
    running.media()
    running.complaints.clear()
    yield running
    assert running.complaints == []
