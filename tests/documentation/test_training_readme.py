"""The numbers that training/README.md tells are those of the files it names."""

import json
import re

from tests.helpers.paths import REPOSITORY

README = " ".join((REPOSITORY / "training" / "README.md").read_text(encoding="utf-8").split())
RESULTS = REPOSITORY / "benchmarks" / "results" / "tasks"


def result(name):
    assert f"(../benchmarks/results/tasks/{name})" in README
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def test_what_the_layer_cache_saves():
    found, small = result("layer-cache-original.json"), result("layer-cache.json")
    assert (found["size"], small["size"]) == ("original", "small")
    for one in (found, small):
        later = {way: sum(times["seconds"][1:]) for way, times in one["ways"].items()}
        for way, times in one["faster_epochs"].items():
            assert times == round(later["none"] / later[way], 2)
        losses = [way["loss"] for way in one["ways"].values()]
        assert max(losses) - min(losses) < 1e-5 * max(losses)
    memory, disk = found["faster_epochs"]["memory"], found["faster_epochs"]["disk"]
    assert f"does {memory:.2f} in the time of one without it, or {disk:.2f} from the disk" in README
    memory, disk = small["faster_epochs"]["memory"], small["faster_epochs"]["disk"]
    assert f"it is {memory:.2f} and {disk:.2f} ([JSON]" in README


def test_what_the_rules_of_roles_cost():
    found = result("role-rules.json")
    run = next(run for run in found["runs"] if f"{100 * run['bio']['f1']:.1f}" in README)
    bio, roles = run["bio"], run["roles"]
    assert (
        f"reach an F1 of {100 * bio['f1']:.1f} and {bio['broken']} of {run['rows']:,} rows break a rule"
        in README
    )
    assert f"takes {roles['seconds']:.1f} seconds of the processor in place of {bio['seconds']:.1f}" in README
    assert f"and F1 is {100 * roles['f1']:.1f}." in README
    assert roles["broken"] == found["right_labels"]["broken"] == 0
    rows = re.search(r"The right labels break no rule in any of the ([\d,]+) rows", README).group(1)
    assert rows == f"{found['right_labels']['rows']:,}"
