"""What a card says of results in words, and the pictures it shows."""

import copy

import pytest

from elmo_hf.hub.card import pictures, words_of
from elmo_hf.hub.results import perplexity_rows, probe_findings, text_name

PROBES = {
    "probes": {
        "senses": {
            "f1": {
                "first sense": {"all": 61.0},
                "trained, layer 0": {"all": 50.0},
                "trained, layer 1": {"all": 58.0},
                "trained, layer 2": {"all": 62.5},
                "random weights, layer 1": {"all": 52.25},
            }
        },
        "tags": {
            "accuracy": {
                "xpos": {
                    "look-up": {"test": 86.0},
                    "trained, layer 1": {"dev": 99.0, "test": 91.5},
                    "trained, layer 2": {"dev": 99.0, "test": 91.0},
                    "random weights, layer 0": {"test": 73.5},
                }
            }
        },
    }
}


def test_what_the_probes_found_is_said_as_it_is():
    assert probe_findings(PROBES) == (
        "Senses are known best by layer 2 (62.50 over all sets), tags (XPOS) by layer 1 (91.50): senses "
        "above tags, as in the paper. The best layers of random weights have 52.25 and 73.50. Senses are "
        "above the inventory's first sense (61.00), which the paper's were above."
    )
    other = copy.deepcopy(PROBES)
    other["probes"]["senses"]["f1"]["trained, layer 1"] = {"all": 62.75}
    other["probes"]["senses"]["f1"]["first sense"] = {"all": 63.0}
    found = probe_findings(other)
    assert "not senses above tags" in found
    assert "Senses are below the" in found


@pytest.mark.parametrize("content", [{}, [], {"probes": {}}, {"probes": {"senses": {"f1": {}}}}])
def test_of_other_probes_nothing_is_said(content):
    assert probe_findings(content) == ""


def test_a_text_has_one_name_whatever_measured_it():
    for path in ("valid.books", "valid.books.txt.xz", "data/valid.books.txt", "valid.books.gz"):
        assert text_name(path) == "valid.books"
    figures = {"forward": 1.0, "backward": 2.0, "mean": 1.5}
    rows = perplexity_rows(
        {
            "perplexity-b": figures,
            "perplexity-a": figures,
            "kneser_ney": {"order": 5, "texts": {"a.txt.xz": figures, "b.txt.xz": figures}},
        }
    )
    assert [row.text for row in rows] == ["b", "b", "a", "a"]
    assert [row.model for row in rows] == ["this model", "5-gram, Kneser-Ney"] * 2


def test_pictures_are_shown_where_they_are(tmp_path):
    assert set(pictures(tmp_path).values()) == {""}
    for name in ("log.png", "probes-map.png", "probes.md", "other.png"):
        (tmp_path / name).touch()
    found = pictures(tmp_path)
    assert found["log"] == "![Loss, perplexity and speed in training](results/log.png)"
    assert found["probes"].startswith(
        "![One word's occurrences by their senses](results/probes-map.png)\n\n["
    )
    assert found["shapes"] == ""


def test_the_papers_figures_stand_beside_ours():
    rows = {"rows": [{"domain": "law", "before": 2.0, "after": 1.0}], "note": "One epoch."}
    assert words_of("domain", rows) == "One epoch. The paper's factors are between 1.7 and 4.3 (its Table 7)."
    assert words_of("shapes", {"minutes": 2.0, **rows}) == "Minutes: 2.000. One epoch."
