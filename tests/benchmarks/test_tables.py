"""The paper's tables: their arithmetic by hand, their Markdown and pictures, and their plan."""

import importlib
import json
import re
import sys
from dataclasses import replace

import pytest

from benchmarks.tables import __main__ as tables_main
from benchmarks.tables import collect as tables_collect
from benchmarks.tables import inputs as tables_inputs
from benchmarks.tables import page as tables_page
from benchmarks.tables import pictures as tables_pictures
from benchmarks.tables import runs as tables_runs
from benchmarks.tables.plan import (
    GAP_FLAGS,
    TABLES,
    TASKS,
    baseline_of,
    passes,
    planned,
    recipe_flags,
    run_of,
)
from benchmarks.tables.published import GAP, PUBLISHED
from benchmarks.tables.runs import Places
from benchmarks.tables.search import searches
from elmo_hf import TINY
from elmo_hf.errors import ElmoError
from elmo_hf.files import write_json
from elmo_hf.finetuning.coreference import read_conll
from tests.helpers.paths import BENCHMARKS

SEEDS = [0, 1, 2]


# ---- arithmetic


def test_means_and_deviations_by_hand():
    assert tables_collect.cell({0: 60.0, 1: 62.0, 2: 64.0}) == {
        "mean": 62.0,
        "std": 2.0,
        "seeds": [0, 1, 2],
        "scores": [60.0, 62.0, 64.0],
    }
    assert tables_collect.cell({4: 60.0}) == {"mean": 60.0, "std": None, "seeds": [4], "scores": [60.0]}
    assert tables_collect.cell({}) is None


def test_the_papers_error_reductions_come_out():
    """As they stand in its Table 1; the one of NER is rounded to 21 there."""
    expected = {"squad": 24.9, "nli": 5.8, "srl": 17.2, "coref": 9.8, "ner-wnut": 21.0, "sst": 6.8}
    for name, reduction in expected.items():
        assert tables_collect.paper_of(TASKS[name])["relative_error_reduction"] == reduction
    assert tables_collect.error_reduction(50.0, 45.0) == -10.0
    assert tables_collect.error_reduction(100.0, 100.0) is None


@pytest.mark.parametrize(
    ("baseline", "elmo", "expected"),
    [
        ([50, 52], [49, 51], "no"),
        ([50, 52], [50, 52], "no"),
        ([50, 52], [51, 53], "within the deviations"),
        ([50, 52], [60, 62], "yes"),
        ([50], [60], "one seed"),
    ],
)
def test_whether_it_helps(baseline, elmo, expected):
    cells = [tables_collect.cell(dict(enumerate(map(float, scores)))) for scores in (baseline, elmo)]
    assert tables_collect.verdict(*cells) == expected


def result(run, score, plan=TASKS, **more):
    """What `record` keeps of a run, as far as it is collected."""
    metrics = {plan[run.task].metric, PUBLISHED[run.task].metric or plan[run.task].metric}
    scores = {split: dict.fromkeys(metrics, score) for split in ("dev", "test")}
    facts = {"flags": recipe_flags(run, plan), "processor_seconds": 60.0, "weights": "abc", "vectors": "def"}
    return vars(run) | {"scores": scores} | facts | more


def results_of(task, scores, baselines, change=None, **more):
    stored_results = {}
    for seed, score in scores.items():
        run = run_of(TASKS, task, change or {}, seed)
        stored_results[run.name("tiny")] = result(run, score, **more)
    for seed, score in baselines.items():
        run = baseline_of(run_of(TASKS, task, change or {}, seed))
        stored_results[run.name("tiny")] = result(run, score, **more)
    return stored_results


def collected(stored_results, seeds, plan=TASKS, weights=None, vectors=None):
    flag = "--elmo models/tiny"
    measured = tables_collect.Measured(stored_results, plan, "tiny", seeds, weights, vectors, flag)
    return tables_collect.collect(measured)


def row_of(tables, name, task, variant="ELMo"):
    rows = [row for row in tables[name]["rows"] if (row["task"], row["variant"]) == (task, variant)]
    assert len(rows) == 1
    return rows[0]


def test_a_row_by_hand():
    stored_results = results_of("sst", {0: 0.42, 1: 0.44, 2: 0.46}, {0: 0.40, 1: 0.40, 2: 0.40})
    tables = collected(stored_results, SEEDS)
    row = row_of(tables, "table1", "Sentiment, SST-5")
    assert row["baseline"]["mean"] == 40.0
    assert row["elmo"] == {"mean": 44.0, "std": 2.0, "seeds": SEEDS, "scores": [42.0, 44.0, 46.0]}
    assert row["relative_error_reduction"] == 6.7  # 4 of 60
    assert row["helps"] == "yes"
    assert row["metric"] == "accuracy"
    assert row["train_size"] == 33_245
    assert row["missing"] == []
    assert row["command"].endswith("--elmo models/tiny --only table1 --tasks sst --seeds 0 1 2")
    assert row["paper"] == {
        "task": "SST-5",
        "baseline": 51.4,
        "elmo": 54.7,
        "relative_error_reduction": 6.8,
    }
    line = next(
        line for line in tables_page.markdown_of("table1", tables["table1"]).split("\n") if "SST" in line
    )
    assert line == (
        "| Sentiment, SST-5 | accuracy | 33,245 | 40.0 ± 0.0 | 44.0 ± 2.0 | 6.7 % | yes "
        "| SST-5: 51.4 → 54.7 | 6.8 % | 1.0 → 1.0 |"
    )


def test_a_part_of_the_data_is_named():
    row = row_of(collected({}, SEEDS), "table1", "Coreference, LitBank")
    assert (row["train_size"], row["train_size_of"]) == (80, "188 pieces of 50 sentences")
    assert "| 80 of 188 pieces of 50 sentences |" in tables_page.budget(TASKS)


def test_squads_scores_are_percentages_already():
    stored_results = results_of("squad", {0: 45.5}, {0: 40.0})
    row = row_of(collected(stored_results, [0]), "table1", "Questions, SQuAD 1.1")
    assert row["elmo"]["mean"] == 45.5
    assert row["relative_error_reduction"] == 9.2  # 5.5 of 60
    assert row["helps"] == "one seed"


def test_gap_is_scored_with_the_models_of_coreference():
    stored_results = results_of("coref", {0: 0.3}, {0: 0.2}, gap={"f1": 0.5}, gap_flags=GAP_FLAGS)
    rows = collected(stored_results, [0])["table1"]["rows"]
    check = next(row for row in rows if row["task"].startswith("GAP"))
    assert check["elmo"]["mean"] == check["baseline"]["mean"] == 50.0
    assert check["helps"] == "no"
    assert check["paper"] is None
    for name, stored in stored_results.items():  # arms that were evaluated in different ways are not compared
        changed = stored_results | {name: stored | {"gap_flags": ["--limit", "9"]}}
        rows = collected(changed, [0])["table1"]["rows"]
        assert not any(row["task"].startswith("GAP") for row in rows)


def test_a_run_that_was_evaluated_on_gap_in_another_way_is_missing(tmp_path):
    places = Places(None, "tiny", tmp_path, tmp_path, TASKS)
    stored_results = results_of(
        "coref", {0: 0.3}, {0: 0.2}, gap={"f1": 0.5}, gap_flags=GAP_FLAGS, weights=None
    )
    for gap_flags, expected in ((GAP_FLAGS, []), (GAP_FLAGS[:-2], sorted(stored_results))):
        for name, stored in stored_results.items():
            content = stored | {"gap_flags": gap_flags, "model": "tiny"}
            write_json(tmp_path / "tables" / "runs" / f"{name}.json", content)
        missing = tables_runs.missing_runs(places, ["table1"], ["coref"], [0])
        assert sorted(run.name("tiny") for run in missing) == expected


def test_missing_runs_are_empty_cells_and_named():
    stored_results = results_of("sst", {}, {0: 0.40, 1: 0.40})
    tables = collected(stored_results, [0, 1])
    row = row_of(tables, "table1", "Sentiment, SST-5")
    assert row["baseline"]["seeds"] == [0, 1]
    assert row["elmo"] is row["relative_error_reduction"] is row["helps"] is None
    assert row["missing"] == [f"tiny.sst.both.mix.l2-0.001.frozen.n33245.seed-{seed}" for seed in (0, 1)]
    other = row_of(tables, "table1", "SRL, PropBank EWT")
    assert (other["baseline"], other["elmo"], len(other["missing"])) == (None, None, 4)
    text = tables_page.markdown_of("table1", tables["table1"])
    assert "| SRL, PropBank EWT | f1 | 10,000 | not run | not run | – | – |" in text
    assert "| 40.0 ± 0.0 (two seeds) | not run | – | – |" in text
    assert "No results yet." in tables_page.markdown_of("figure1", tables["figure1"])


def test_only_seeds_that_all_cells_of_a_task_have_are_compared():
    """The scores that seeds 1 and 2 have alone would change the means."""
    stored_results = results_of("sst", {0: 0.42, 1: 0.10}, {0: 0.40, 2: 0.90})
    row = row_of(collected(stored_results, SEEDS), "table1", "Sentiment, SST-5")
    assert row["baseline"] == {"mean": 40.0, "std": None, "seeds": [0], "scores": [40.0]}
    assert row["elmo"]["mean"] == 42.0
    assert (row["relative_error_reduction"], row["helps"]) == (3.3, "one seed")  # 2 of 60
    assert [name[-6:] for name in row["missing"]] == ["seed-1", "seed-2"]
    assert row["minutes"] == {"baseline": 1.0, "elmo": 1.0}

    variants = TABLES["table2"].variants
    first, second = (variants[name] for name in ("top layer", "all layers, lambda 1"))
    stored_results |= results_of("sst", {0: 0.5, 1: 0.6}, {1: 0.3}, first)
    stored_results |= results_of("sst", {1: 0.7}, {}, second)
    tables = collected(stored_results, SEEDS)
    rows = [row_of(tables, "table2", "Sentiment, SST-5", variant) for variant in variants]
    assert [row["elmo"]["scores"] for row in rows] == [[60.0], [70.0], [10.0]]
    assert all(row["baseline"]["scores"] == [30.0] for row in rows)


def test_scores_without_a_seed_in_common_are_not_compared():
    stored_results = results_of("sst", {0: 0.42}, {1: 0.40})
    row = row_of(collected(stored_results, SEEDS), "table1", "Sentiment, SST-5")
    assert (row["baseline"]["seeds"], row["elmo"]["seeds"]) == ([1], [0])
    assert row["relative_error_reduction"] is row["helps"] is None


def test_results_of_other_settings_do_not_count():
    longer = {name: replace(task, epochs=task.epochs + 1) for name, task in TASKS.items()}
    stored_results = results_of("sst", {0: 0.42}, {0: 0.40})
    row = row_of(collected(stored_results, [0], longer), "table1", "Sentiment, SST-5")
    assert row["baseline"] is row["elmo"] is None


def test_results_of_other_weights_do_not_count():
    stored_results = results_of("sst", {0: 0.42}, {0: 0.40})
    for weights, is_there in ((None, True), ("abc", True), ("abd", False)):
        row = row_of(collected(stored_results, [0], weights=weights), "table1", "Sentiment, SST-5")
        assert (row["elmo"] is not None) == is_there
        assert row["baseline"]["mean"] == 40.0  # which has none


def test_results_of_other_word_vectors_do_not_count():
    stored_results = results_of("sst", {0: 0.42}, {0: 0.40}) | results_of("sst", {1: 0.46}, {1: 0.41})
    for name in stored_results:
        if name.endswith("seed-1"):
            stored_results[name]["vectors"] = "deg"
    for vectors, seed in (("def", 0), ("deg", 1)):
        row = row_of(collected(stored_results, [0, 1], vectors=vectors), "table1", "Sentiment, SST-5")
        assert row["baseline"]["seeds"] == row["elmo"]["seeds"] == [seed]
    with pytest.raises(
        ElmoError, match=r"seed-0 and .*seed-1 were made with different word vectors; name those"
    ):
        collected(stored_results, [0, 1])  # which does not know those of the tables
    for name in stored_results:
        del stored_results[name]["vectors"]  # of nobody knows which
    row = row_of(collected(stored_results, [0, 1], vectors="def"), "table1", "Sentiment, SST-5")
    assert row["baseline"] is row["elmo"] is None


def test_the_fingerprint_of_word_vectors_is_of_their_content(tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "index").write_bytes(b"bank")
    (folder / "numbers").write_bytes(b"01")
    one = tmp_path / "glove.txt"
    one.write_bytes(b"bank01")
    places = Places(None, None, tmp_path, tmp_path, TASKS)
    first = replace(places, vectors=folder).vectors_fingerprint
    assert first == replace(places, vectors=one).vectors_fingerprint is not None  # wherever they are
    (folder / "numbers").write_bytes(b"02")
    assert replace(places, vectors=folder).vectors_fingerprint != first
    assert (
        places.vectors_fingerprint is replace(places, vectors=tmp_path / "none").vectors_fingerprint is None
    )


def test_each_baseline_has_a_published_figure_or_a_reason():
    assert set(PUBLISHED) == {*TASKS, GAP}
    for name, entry in PUBLISHED.items():
        assert entry.why.endswith("."), name
        assert ("We know of no figure" in entry.why) == (not entry.figures), name
        for figure in entry.figures:
            assert 0 < figure.score < 100
            assert figure.url.startswith("https://")
            assert re.search(r" (19|20)\d\d\b", figure.source), figure.source
    paper = {name: TASKS[name].paper[1] for name in ("sst", "squad")}
    for name, score in paper.items():
        assert score in [figure.score for figure in PUBLISHED[name].figures]


def test_published_figures_are_shown_with_our_baseline_by_the_same_score():
    stored_results = results_of("coref", {0: 0.4}, {0: 0.3}, gap={"f1": 0.5}, gap_flags=GAP_FLAGS)
    for stored in stored_results.values():
        stored["scores"]["test"]["conll_f1_with_singletons"] = 0.2
    tables = collected(stored_results, [0])
    row = row_of(tables, "table1", "Coreference, LitBank")
    assert row["baseline"]["mean"] == 30.0
    assert row["published"]["baseline"]["mean"] == 20.0
    text = tables_page.table_with_published(tables)
    figure = PUBLISHED["coref"].figures[0]
    assert (
        f"| Coreference, LitBank | conll_f1_with_singletons | 20.0 (one seed) | {figure.score} "
        f"| {figure.system} | [{figure.source}]({figure.url}) |"
    ) in text
    assert "| f1 | 50.0 (one seed) | 66.9 |" in text  # GAP
    assert "| NER, Broad Twitter | f1 | not run | – | – | – |" in text
    assert text.count("| Sentiment, SST-5 |") == len(PUBLISHED["sst"].figures)
    for name, entry in PUBLISHED.items():
        assert (f": {entry.why}" in text) is (
            name in (*TABLES["table1"].tasks, GAP)
        )  # the others are not run
    of_all = results_of("squad-all", {}, {0: 0.7})
    text = tables_page.table_with_published(collected(stored_results | of_all, [0]))
    assert f"- Questions, SQuAD 1.1, all: {PUBLISHED['squad-all'].why}" in text
    json.dumps(tables)


ADAPTING = {
    "domain": "movies",
    "train_words": 12_345,
    "before": {"mean": 90.04, "unknown": 0.123},
    "after": {"mean": 60.0, "unknown": 0.123},
}


def test_perplexities_of_an_adapted_biLM():
    stored_results = results_of("sst", {0: 0.5}, {0: 0.4}, {"biLM": "adapted"}, adapting=ADAPTING)
    tables = collected(stored_results, [0])
    row = row_of(tables, "adapted", "Sentiment, SST-5", "adapted")
    text = {"field": "movies", "words": 12_345, "unknown": 0.123}
    assert row["adapting"] == text | {"perplexity": [90.0, 60.0]}
    assert "adapting" not in row_of(tables, "adapted", "Sentiment, SST-5", "not adapted")
    text = tables_page.markdown_of("adapted", tables["adapted"])
    words = "12,345 words of training, 12 % unknown"
    assert f"Perplexity of the domain's held-out text: movies 90.0 → 60.0 ({words})." in text
    assert "Perplexity" not in tables_page.markdown_of("table1", tables["table1"])


def test_a_run_with_an_adapted_biLM_records_its_perplexities_and_vectors(tmp_path):
    vectors = tmp_path / "glove.txt"
    vectors.write_text("bank 1", encoding="utf-8")
    places = Places(None, "my-elmo", tmp_path / "runs", tmp_path / "results", TASKS, vectors)
    run = run_of(TASKS, "sst", {"biLM": "adapted"}, 0)
    learnt = {"dev": {}, "test": {}, "epochs": 1, "best_epoch": 1, "seconds": 1, "processor_seconds": 1}
    write_json(places.folder(run) / "results.json", {"examples": {}, "versions": {}, "runs": {"0": learnt}})
    write_json(tmp_path / "runs" / f"{places.adapted(run)}.json", {"rows": [ADAPTING]})
    tables_runs.record(places, run)
    (stored,) = (tmp_path / "results" / "tables" / "runs").iterdir()
    content = json.loads(stored.read_text())
    assert content["adapting"] == ADAPTING
    assert content["vectors"] == places.vectors_fingerprint is not None


def test_an_adaptation_without_perplexities_is_continued(tmp_path):
    """As after a kill between the biLM and its perplexities, which a recorded run needs."""
    places = tables_runs.Places(None, str(tmp_path / "my-elmo"), tmp_path, tmp_path, TASKS)
    run = run_of(TASKS, "sst", {"biLM": "adapted"}, 0)
    (tmp_path / places.adapted(run) / "final").mkdir(parents=True)
    names = [job.name for job in tables_runs.jobs_of(places, [run])]
    assert names == [places.adapted(run), run.name("my-elmo")]
    write_json(tmp_path / f"{places.adapted(run)}.json", {"rows": [ADAPTING]})
    assert [job.name for job in tables_runs.jobs_of(places, [run])] == [run.name("my-elmo")]


def test_variants_are_columns():
    changes = TABLES["table2"].variants
    stored_results = {}
    for number, change in enumerate(changes.values()):
        stored_results |= results_of("sst", {0: 0.42 + number / 100}, {0: 0.40}, change)
    tables = collected(stored_results, [0])
    lines = tables_page.markdown_of("table2", tables["table2"]).split("\n")
    assert "| task | without ELMo | top layer | all layers, lambda 1 | all layers, lambda 0.001 |" in lines
    note = " (one seed)"
    assert lines[-1] == (
        f"| Sentiment, SST-5 | 40.0{note} | 42.0{note} (3.3 %) | 43.0{note} (5.0 %) | 44.0{note} (6.7 %) |"
    )


def test_shares_of_the_train_set_have_baselines_of_their_own():
    stored_results = {}
    for share in (0.01, 1.0):
        stored_results |= results_of(
            "ner-ewt", {0: 0.4 + share / 10}, {0: 0.3 + share / 10}, {"share": share}
        )
    tables = collected(stored_results, [0])
    row = row_of(tables, "figure1", "NER, UNER English EWT", "1 %")
    assert (row["train_size"], row["baseline"]["mean"], row["elmo"]["mean"]) == (125, 30.1, 40.1)
    lines = tables_page.markdown_of("figure1", tables["figure1"]).split("\n")
    assert "| task | 1 % | 2 % | 5 % | 10 % | 20 % | 50 % | 100 % |" in lines
    without = next(line for line in lines if line.startswith("| NER, UNER English EWT, without"))
    assert without.startswith("| NER, UNER English EWT, without | 30.1 (one seed) | not run |")
    assert without.endswith("| 40.0 (one seed) |")


def test_pictures_of_stored_results(tmp_path):
    stored_results = results_of("sst", {0: 0.42, 1: 0.44}, {0: 0.40})
    stored_results |= results_of("ner-ewt", {0: 0.4}, {}, {"share": 0.01})
    tables = collected(stored_results, [0, 1])
    tables_pictures.draw_tables(tables, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"table1.png", "figure1.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    empty = tmp_path / "empty"
    empty.mkdir()
    tables_pictures.draw_tables(collected({}, SEEDS), empty)
    assert not list(empty.iterdir())


def test_learnt_shares_are_means_over_seeds_and_have_a_picture(tmp_path):
    stored_results = results_of("sst", {0: 0.42, 1: 0.44}, {0: 0.40, 1: 0.4})
    for seed, shares in ((0, [0.5, 0.3, 0.2]), (1, [0.7, 0.1, 0.2])):
        run = run_of(TASKS, "sst", {}, seed)
        mixes = {place: {"shares": shares, "gamma": 1.0} for place in ("input", "output")}
        stored_results[run.name("tiny")]["mix"] = mixes
    tables = collected(stored_results, [0, 1])
    mean = [0.6, 0.2, 0.2]
    assert row_of(tables, "table1", "Sentiment, SST-5")["mix"] == {"input": mean, "output": mean}
    tables_pictures.draw_tables(tables, tmp_path)
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")
    lines = tables_page.table_of_shares(tables["table1"]).split("\n")
    assert lines[-4:] == [
        "| task | mix at the | words | layer 1 | layer 2 |",
        "| --- | --- | ---: | ---: | ---: |",
        "| Sentiment, SST-5 | input | 0.60 | 0.20 | 0.20 |",
        "| Sentiment, SST-5 | output | 0.60 | 0.20 | 0.20 |",
    ]
    assert "No results yet." in tables_page.table_of_shares(collected({}, SEEDS)["table1"])


def test_minutes_are_means_of_the_runs_without_and_with_elmo():
    stored_results = results_of(
        "coref", {0: 0.4, 1: 0.4}, {0: 0.3, 1: 0.3}, gap={"f1": 0.5}, gap_flags=GAP_FLAGS
    )
    for stored in stored_results.values():
        stored["processor_seconds"] = 90.0 * (1 + stored["seed"]) if stored["place"] == "input" else 30.0
    table = collected(stored_results, [0, 1])["table1"]
    rows = [line for line in tables_page.markdown_of("table1", table).split("\n") if "LitBank" in line]
    assert [row.rstrip("|").rsplit("|", 1)[1].strip() for row in rows] == ["0.5 → 2.2", "–"]  # then GAP


def test_a_table_that_is_not_named_stays_as_it_was(tmp_path, monkeypatch, capsys):
    """Its runs may be missing, or of an older plan."""
    results = tmp_path / "results"
    for name, table in collected(results_of("sst", {0: 0.42}, {0: 0.40}), [0]).items():
        write_json(results / f"{name}.json", table)
    before = {path.name: path.read_bytes() for path in results.glob("*.json")}
    options = ["--collect", "--results", str(results), "--only", "table1"]
    monkeypatch.setattr(sys, "argv", ["tables", *options])
    tables_main.main()
    after = {path.name: path.read_bytes() for path in results.glob("*.json")}
    assert [name for name in before if before[name] != after[name]] == ["table1.json"]
    assert b'"mean": 40.0' not in after["table1.json"]  # of runs that are not stored there
    assert "table1" in capsys.readouterr().out


def test_lambda_of_names_is_left_to_their_recipe():
    for name, is_given in (("ner-ewt", False), ("sst", True)):
        flags = recipe_flags(run_of(TASKS, name, {}, 0), TASKS)
        assert any(flag.startswith("mix_l2=") for flag in flags) == is_given


def test_the_tables_in_the_readme_are_those_of_the_json(tmp_path):
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    results = BENCHMARKS / "results"
    paths = {name: results / f"{name}.json" for name in TABLES}
    if not all(path.is_file() for path in paths.values()):
        pytest.skip("the tables are not stored")
    tables = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    page = tmp_path / "README.md"
    page.write_text(readme, encoding="utf-8")
    places = Places(None, str(TINY), tmp_path, results, TASKS)
    tables_page.fill_tables(page, tables, TASKS, searches(places))
    assert page.read_text(encoding="utf-8") == readme, "run python -m benchmarks.tables --collect"
    for name in (*TABLES, "budget", "choices", "figure2", "published"):
        assert f"<!-- tables: {name} -->" in readme


# ---- the plan


def test_the_plan_has_every_row_of_the_paper():
    assert {*TABLES["table1"].tasks, *TABLES["whole"].tasks} == set(TASKS)
    recipes = {task.recipe for task in TASKS.values()}
    assert recipes == {f"finetune_{name}.py" for name in ("srl", "ner", "sst", "nli", "squad", "coref")}
    assert all((BENCHMARKS.parent / "training" / recipe).is_file() for recipe in recipes)
    assert list(TABLES["figure1"].variants) == ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %", "100 %"]
    layers = [run_of(TASKS, "srl", change, 0) for change in TABLES["table2"].variants.values()]
    assert [(run.layers, run.mix_l2) for run in layers] == [("top", 0.001), ("mix", 1.0), ("mix", 0.001)]
    places = [run_of(TASKS, "srl", change, 0).place for change in TABLES["table3"].variants.values()]
    assert places == ["input", "both", "output"]
    assert run_of(TASKS, "srl", TABLES["tuned"].variants["tuned"], 0).biLM == "tuned"
    for name in TABLES["adapted"].tasks:
        assert TASKS[name].domain is not None


def test_table_1_of_all_tasks_comes_first_and_nothing_twice():
    runs = planned(TASKS, list(TABLES), list(TASKS), SEEDS)
    assert len(set(runs)) == len(runs)
    tasks = TABLES["table1"].tasks
    first = runs[: 2 * len(tasks)]
    assert {run.task for run in first} == set(tasks)
    assert {run.seed for run in first} == {0}
    assert [run.place == "none" for run in first] == [True, False] * len(tasks)
    table1 = planned(TASKS, ["table1"], list(TASKS), SEEDS)
    assert runs[: len(table1)] == table1
    assert len(table1) == 2 * len(tasks) * len(SEEDS)
    names = [run.name("tiny") for run in runs]
    assert len(set(names)) == len(names)


def test_a_baseline_has_the_same_budget():
    for run in planned(TASKS, list(TABLES), list(TASKS), [0]):
        flags, other = recipe_flags(run, TASKS), recipe_flags(baseline_of(run), TASKS)
        cut = flags.index("--set") + 1 + len(TASKS[run.task].settings)
        assert flags[:cut] == other[:cut]
        assert other[cut:] == ["elmo_at_input=false", "elmo_at_output=false"]
    assert baseline_of(run_of(TASKS, "sst", {"mix_l2": 1.0}, 0)) == baseline_of(run_of(TASKS, "sst", {}, 0))


def test_few_examples_are_read_more_often():
    task = TASKS["srl"]
    sizes = {share: run_of(TASKS, "srl", {"share": share}, 0) for share in (1.0, 0.1, 0.01)}
    assert {share: passes(run, task) for share, run in sizes.items()} == {1.0: 1, 0.1: 2, 0.01: 8}
    texts = {share: " ".join(recipe_flags(run, TASKS)) for share, run in sizes.items()}
    assert all(f"--epochs {task.epochs} --patience {task.patience} " in flags for flags in texts.values())
    assert "--passes" not in texts[1.0]
    assert " --passes 2 " in texts[0.1]
    assert " --passes 8 " in texts[0.01]
    batches = {share: flags.count("--batch-size 8 ") for share, flags in texts.items()}
    assert batches == {1.0: 0, 0.1: 1, 0.01: 1}


def test_recipes_know_these_flags():
    """The parser of each recipe accepts the plan's commands."""
    from elmo_hf import ElmoConfig
    from elmo_hf.finetuning.flags import make_parser
    from elmo_hf.finetuning.run import parse_setting

    for run in planned(TASKS, list(TABLES), list(TASKS), [0]):
        parser = make_parser("", batch_size=1, learning_rate=1.0, epochs=1, patience=1, clip=1.0)
        for name in ("--phrases", "--max-context"):
            parser.add_argument(name)
        flags = parser.parse_args(["--output", "x", *recipe_flags(run, TASKS)])
        assert (flags.train_size, flags.seeds) == (run.train_size, [run.seed])
        recipe = importlib.import_module("training." + TASKS[run.task].recipe.removesuffix(".py"))
        config = ElmoConfig(**recipe.CONFIG | dict(map(parse_setting, flags.set)))
        assert config.reads_elmo == (run.place != "none")


def test_recorded_commands_have_no_path_of_this_machine(tmp_path):
    places = Places(tmp_path / "data", str(tmp_path / "my-elmo"), tmp_path / "runs", tmp_path, TASKS)
    for run in planned(TASKS, list(TABLES), list(TASKS), [0]):
        commands = tables_runs.recorded_commands(places, run)
        assert not any(str(tmp_path) in command for command in commands)
        assert all(
            command.startswith(("python training/", "python -m benchmarks.language_models.domain"))
            for command in commands
        )
        for words in tables_runs.commands_of(places, run):
            real = tables_runs.local_command(places, words)
            assert not any(re.match("(.*=)?(DATA|RUNS)/|ELMO$", word) for word in real)
    adapted = run_of(TASKS, "sst", {"biLM": "adapted"}, 0)
    first, second = tables_runs.recorded_commands(places, adapted)
    assert first == (
        "python -m benchmarks.language_models.domain --model my-elmo "
        "--domains movies=runs/tables/data/movies.txt "
        "--keep runs/tables/adapted-my-elmo --output runs/tables/adapted-my-elmo/movies.json"
    )
    assert "--elmo runs/tables/adapted-my-elmo/movies/final" in second
    [adapting, _] = tables_runs.jobs_of(places, [adapted])
    assert adapting.commands[0][6] == f"movies={tmp_path / 'runs' / 'data' / 'movies.txt'}"


# ---- inputs


def test_a_missing_file_is_named(tmp_path):
    run = run_of(TASKS, "ner-wnut", {}, 0)
    folder = tmp_path / "ner_wnut17"
    assert tables_inputs.missing_file([run], TASKS, tmp_path) == folder / "wnut17train.conll"
    folder.mkdir()
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        (folder / name).touch()
    assert tables_inputs.missing_file([run], TASKS, tmp_path) is None
    adapted = replace(run, biLM="adapted")
    assert tables_inputs.missing_file([adapted], TASKS, tmp_path) == tmp_path / "ner_btc" / "a.conll"


def test_a_premise_is_for_dev_or_for_test(tmp_path):
    import lzma

    rows = [f"premise {number // 3}\thypothesis {number}\tneutral\tfiction" for number in range(300)]
    (tmp_path / "nli_mnli_20k").mkdir()
    text = "\n".join(["sentence1\tsentence2\tlabel\tgenre", *rows]) + "\n"
    (tmp_path / tables_inputs.MNLI).write_bytes(lzma.compress(text.encode()))
    tables_inputs.cut_mnli(tmp_path, tmp_path / "cut")
    splits = {}
    for name in ("mnli_dev", "mnli_test"):
        header, *lines = (tmp_path / "cut" / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        assert header == "sentence1\tsentence2\tlabel\tgenre"
        splits[name] = lines
    assert sorted(splits["mnli_dev"] + splits["mnli_test"]) == sorted(rows)
    premises = [{line.split("\t")[0] for line in lines} for lines in splits.values()]
    assert not premises[0] & premises[1]
    assert min(map(len, premises)) > 20


def test_documents_of_ontogum_are_split_and_named(tmp_path):
    import io
    import tarfile

    (tmp_path / "coref_ontogum").mkdir()
    for split, number in (("train", 20), ("dev", 2)):
        with tarfile.open(tmp_path / tables_inputs.GUM[split], "w:xz") as tar:
            for place in range(number):
                content = b"# begin document \n0\tAda\t(1)\n\n# end document\n"
                member = tarfile.TarInfo(f"GUM_{split}_{place:02}.conll")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    tables_inputs.split_gum(tmp_path, tmp_path / "cut")
    names = {
        split: [document["name"] for document in read_conll(tmp_path / "cut" / f"ontogum_{split}.conll")]
        for split in ("train", "dev", "test")
    }
    assert names["dev"] == ["GUM_train_09", "GUM_train_19"]
    assert len(names["train"]) == 18
    assert names["test"] == ["GUM_dev_00", "GUM_dev_01"]


def test_text_of_a_domain(tmp_path, monkeypatch):
    (tmp_path / "names.conll").write_text("He O\nleft O\n\nWhy O\n", encoding="utf-8")
    monkeypatch.setitem(tables_inputs.DOMAINS, "web", ("DATA/names.conll",))
    tables_inputs.make_domain("web", tmp_path, tmp_path)
    assert (tmp_path / "web.txt").read_text(encoding="utf-8") == "He left\nWhy\n"


# ---- how long it takes


def test_estimates_follow_the_measurements(tmp_path):
    places = Places(None, "tiny", tmp_path, tmp_path, TASKS)
    runs = planned(TASKS, ["table1"], ["sst", "srl"], [0, 1])
    before = tables_runs.minutes_left(places, runs)
    run = runs[0]
    assert run.task == "srl"
    assert run.place == "none"
    stored = tmp_path / "tables" / "runs" / f"{run.name('tiny')}.json"
    stored.parent.mkdir(parents=True)
    stored.write_text(json.dumps(result(run, 0.5) | {"processor_seconds": 3 * 60 * before[0]}))
    after = tables_runs.minutes_left(places, runs)
    assert after == pytest.approx([3 * minutes for minutes in before])
