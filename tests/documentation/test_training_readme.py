"""The numbers in training/README.md are those of the result files that it names."""

import json
import re

from tests.helpers.paths import REPOSITORY

README = " ".join((REPOSITORY / "training" / "README.md").read_text(encoding="utf-8").split())
RESULTS = REPOSITORY / "benchmarks" / "results" / "tasks"


def result(name):
    assert f"(../benchmarks/results/tasks/{name})" in README
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_time_saved_by_the_layer_cache():
    original, small = result("layer-cache-original.json"), result("layer-cache.json")
    assert (original["size"], small["size"]) == ("original", "small")
    for results in (original, small):
        later = {cache: sum(run["seconds"][1:]) for cache, run in results["ways"].items()}
        for cache, factor in results["faster_epochs"].items():
            assert factor == round(later["none"] / later[cache], 2)
        losses = [run["loss"] for run in results["ways"].values()]
        assert max(losses) - min(losses) < 1e-5 * max(losses)
    memory, disk = original["faster_epochs"]["memory"], original["faster_epochs"]["disk"]
    assert (
        f"is {memory:.2f} times as fast with the layers in memory, and {disk:.2f} times from the disk"
        in README
    )
    memory, disk = small["faster_epochs"]["memory"], small["faster_epochs"]["disk"]
    assert f"it is {memory:.2f} and {disk:.2f} times ([JSON]" in README


def test_cost_of_the_role_rules():
    results = result("role-rules.json")
    run = next(run for run in results["runs"] if f"{100 * run['bio']['f1']:.1f}" in README)
    bio, roles = run["bio"], run["roles"]
    assert (
        f"reach an F1 of {100 * bio['f1']:.1f} and {bio['broken']} of {run['rows']:,} rows break a rule"
        in README
    )
    assert f"takes {roles['seconds']:.1f} seconds of the processor in place of {bio['seconds']:.1f}" in README
    assert f"and F1 is {100 * roles['f1']:.1f}." in README
    assert roles["broken"] == results["right_labels"]["broken"] == 0
    rows = re.search(r"The right labels break no rule in any of the ([\d,]+) rows", README).group(1)
    assert rows == f"{results['right_labels']['rows']:,}"
