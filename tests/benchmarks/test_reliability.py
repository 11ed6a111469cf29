"""The tables of docs/reliability.md are those of the JSON files, and no row of them has a fault."""

import json

import pytest

from benchmarks import reliability
from benchmarks.report import RESULTS, fill_blocks


def test_the_page_has_the_tables():
    text = reliability.PAGE.read_text(encoding="utf-8")
    assert fill_blocks(text, "reliability", reliability.table) == text


@pytest.mark.parametrize("name", reliability.TABLES)
def test_the_page_has_a_block(name):
    assert f"<!-- reliability: {name} -->" in reliability.PAGE.read_text(encoding="utf-8")


def read(name):
    return json.loads((RESULTS / "reliability" / f"{name}.json").read_text(encoding="utf-8"))


def test_nothing_failed():
    assert read("random")["failures"] == []
    assert not any(
        row[key] for row in read("kills")["scenarios"].values() for key in ("unequal", "stuck", "failed")
    )
    faults = reliability.fuzz.COLUMNS
    assert not any(door[key] for door in read("fuzz")["doors"].values() for key in faults)
