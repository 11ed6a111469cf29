"""Some damaged files at every door; `python -m tests.fuzz` runs thousands."""

import pytest

from tests.fuzz.doors import DOORS
from tests.fuzz.harness import run_door
from tests.fuzz.report import Report

FILES = 10
SEED = 1


@pytest.mark.parametrize("name", DOORS)
def test_door(name, tmp_path):
    report = Report(name, SEED)
    for outcome in run_door(DOORS[name], range(FILES), tmp_path, SEED):
        report.add(outcome)
    assert not report.distinct, "\n".join(report.lines())
    assert report.results["refused"] > 0
    assert report.results.total() == FILES
