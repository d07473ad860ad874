"""A short run of the fuzzer, the same each time; `make test-all` gives it longer, and other seeds each day."""

import datetime

import pytest
from helpers.fuzz import KINDS, fuzz

FILES = {"pickle": 1000, "archive": 60, "checkpoint": 120, "image": 600}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused(tmp_path, name):
    read, refused = fuzz(KINDS[name], tmp_path, files=FILES[name])
    assert read + refused == FILES[name]
    assert refused > FILES[name] / 50  # the damage is neither too little nor too much
    assert read > FILES[name] / 50 or name == "checkpoint"  # of which one in fifty is still whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused_for_long(tmp_path, name):
    fuzz(KINDS[name], tmp_path, seed=datetime.date.today().toordinal() * 1_000_000, seconds=30)
