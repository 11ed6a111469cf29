"""Results on benchmarks of the Hub: the files of `.eval_results`, what is refused, and the upload."""

import json
import re
import textwrap

import pytest
import yaml
from huggingface_hub import HfApi, ModelCard, parse_eval_result_entries
from typer.testing import CliRunner

from elmo_hf.cli import app
from elmo_hf.errors import ElmoError
from elmo_hf.hub.card import render, render_card, write_card
from elmo_hf.hub.push import prepare, push
from elmo_hf.hub.results import Result, with_results
from elmo_hf.hub.signature import MARK
from tests.helpers.card_folders import FACTS, write
from tests.helpers.hub_folders import FILES, NAME, RESULT_FILES, refused
from tests.helpers.paths import REPOSITORY

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

BENCHMARK = {"id": "their/wnut_17", "task_id": "default"}
PATH = ".eval_results/their--wnut_17--default.yaml"
EVAL = (
    b"name: WNUT 17\nevaluation_framework: x\ntasks:\n- id: default\n  config: wnut\n  split: test\n- id: b\n"
)
ROW = {"dataset": "WNUT 17", "metric": "f1", "value": 0.4321, "split": "test"}


@pytest.fixture
def scored(folder):
    """A model with a score, and facts that name its benchmark."""
    return score(folder, [ROW])


@pytest.fixture
def board(hub):
    """A Hub that has the benchmark."""
    hub.add_dataset("their/wnut_17", {"eval.yaml": EVAL})
    return hub


def score(folder, rows, name="evaluation", **content):
    content = {"command": "evaluate"} | content
    write(folder, results={name: with_results(content, Result("evaluation", rows))})
    return name_benchmarks(folder, {"WNUT 17": BENCHMARK})


def name_benchmarks(folder, benchmarks):
    return write(folder, FACTS | {"benchmarks": benchmarks}, {})


def refusal(folder):
    with pytest.raises(ElmoError, match=r"\.$") as error:
        write_card(folder)
    assert "\n" not in str(error.value)
    assert not (folder / "README.md").exists()
    assert not (folder / ".eval_results").exists()
    return str(error.value)


# ---- the files


def test_a_file_has_the_score_and_its_source(scored):
    [(path, text)] = render(scored).benchmarks.items()
    assert path == PATH
    assert text.startswith(f"# {MARK} SHA-256: ")
    assert yaml.safe_load(text) == [
        {
            "dataset": {"id": "their/wnut_17", "task_id": "default"},
            "value": 0.4321,
            "source": {
                "url": f"https://huggingface.co/{NAME}/blob/main/results/evaluation.json",
                "name": "results/evaluation.json",
            },
        }
    ]
    [score] = [one for one in ModelCard(render_card(scored)).data.eval_results if one.metric_type == "f1"]
    assert (score.dataset_type, score.dataset_name) == ("their/wnut_17", "WNUT 17")


def test_all_that_the_facts_can_say(folder):
    score(folder, [ROW, ROW | {"metric": "b", "split": "x", "value": 7}])
    source = {"url": "https://example.org/log", "name": "Logs: all", "user": "someone", "org": "them"}
    details = {"revision": "0123456789" * 4, "date": "2026-01-31", "notes": 'no "gold" # tags'}
    name_benchmarks(
        folder, {"WNUT 17": BENCHMARK | details | {"metric": "b", "split": "x", "source": source}}
    )
    [text] = render(folder).benchmarks.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(text))
    assert vars(entry) == {
        "dataset_id": "their/wnut_17",
        "task_id": "default",
        "value": 7,
        "dataset_revision": "0123456789" * 4,
        "verify_token": None,
        "date": "2026-01-31",
        "source_url": "https://example.org/log",
        "source_name": "Logs: all",
        "source_user": "someone",
        "source_org": "them",
        "notes": 'no "gold" # tags',
    }


@pytest.mark.parametrize(
    ("date", "kept"), [("2026-01-31T10:30:00Z", True), ("2026-01-31", True), ("yesterday", False), (7, False)]
)
def test_the_date_of_a_file_of_results(folder, date, kept):
    score(folder, [ROW], date=date)
    [text] = render(folder).benchmarks.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(text))
    assert entry.date == (date if kept else None)


def test_which_of_several_scores(folder):
    rows = [
        {"dataset": "WNUT 17", "metric": metric, "value": value, "split": split}
        for value, (metric, split) in enumerate([("f1", "dev"), ("f1", "test"), ("recall", "test")])
    ]
    score(folder, rows)
    sentence = refusal(folder)
    assert (
        "'WNUT 17' must say which of its 3 scores counts, by metric and split: f1, dev; f1, test; recall"
        in (sentence)
    )
    for choice, value in (
        ({"metric": "recall"}, 2),
        ({"split": "dev"}, 0),
        ({"metric": "f1", "split": "test"}, 1),
    ):
        name_benchmarks(folder, {"WNUT 17": BENCHMARK | choice})
        [text] = render(folder).benchmarks.values()
        assert yaml.safe_load(text)[0]["value"] == value
    for choice in ({"metric": "f1"}, {"metric": "accuracy"}, {"split": "train"}):
        name_benchmarks(folder, {"WNUT 17": BENCHMARK | choice})
        assert "must say which of its" in refusal(folder)


def test_several_benchmarks(folder):
    score(folder, [ROW, ROW | {"dataset": "2003", "value": 0.5}])
    name_benchmarks(folder, {"WNUT 17": BENCHMARK, 2003: BENCHMARK | {"task_id": "aime|0/x"}})
    files = render(folder).benchmarks
    assert list(files) == [PATH, ".eval_results/their--wnut_17--aime-0--x.yaml"]
    assert [yaml.safe_load(text)[0]["value"] for text in files.values()] == [0.4321, 0.5]
    name_benchmarks(folder, {"WNUT 17": BENCHMARK, 2003: dict(BENCHMARK)})
    assert "'benchmarks': 2003 is their/wnut_17, default, as another one is." in refusal(folder)


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ({"CoNLL": BENCHMARK}, "'CoNLL' has no score: no results of an evaluation are of this data set."),
        ({"valid.books": BENCHMARK}, "'valid.books' has no score"),  # that is a perplexity
        ({"WNUT 17": {"id": "their/wnut_17"}}, "lacks 'task_id'"),
        ({"WNUT 17": BENCHMARK | {"config": "x"}}, "has 'config', but a card knows only id, task_id"),
        (
            {"WNUT 17": BENCHMARK | {"id": "wnut"}},
            "'id' must be ORG/NAME, a dataset on the Hub, but is 'wnut'",
        ),
        ({"WNUT 17": BENCHMARK | {"id": "a/../b"}}, "'id' must be the name of a dataset on the Hub"),
        ({"WNUT 17": BENCHMARK | {"id": 5}}, "'id' must be a text"),
        ({"WNUT 17": BENCHMARK | {"id": "TODO/TODO"}}, "must have no placeholder such as 'TODO'"),
        ({"WNUT 17": BENCHMARK | {"task_id": "a b"}}, "'task_id' must be a name of at most 100 letters"),
        ({"WNUT 17": BENCHMARK | {"task_id": "a" * 101}}, "'task_id' must be a name of at most 100 letters"),
        ({"WNUT 17": BENCHMARK | {"revision": "main"}}, "'revision' must be the SHA of a commit"),
        ({"WNUT 17": BENCHMARK | {"date": "31.1.2026"}}, "'date' must be a date such as 2026-01-31"),
        ({"WNUT 17": BENCHMARK | {"source": {"name": "x"}}}, "'source' lacks 'url'"),
        ({"WNUT 17": BENCHMARK | {"source": {"url": "x"}}}, "'url' must be an address that begins with"),
        ({"WNUT 17": "their/wnut_17"}, "must hold names with values"),
        (["WNUT 17"], "'benchmarks' must hold names with values"),
    ],
)
def test_facts_that_are_refused(scored, benchmarks, message):
    name_benchmarks(scored, benchmarks)
    assert message in refusal(scored)


def test_texts_stay_where_they_stand(folder):
    evil = 'x\n- dataset: {id: evil/evil}\n  value: 1 # "'
    score(folder, [ROW | {"dataset": evil}])
    source = {"url": "https://example.org/a#b", "name": evil}
    name_benchmarks(folder, {evil: BENCHMARK | {"notes": evil, "source": source}})
    [text] = render(folder).benchmarks.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.notes, entry.source_name) == (
        "their/wnut_17",
        *[" ".join(evil.split())] * 2,
    )


def test_the_example_of_the_readme(folder):
    text = (REPOSITORY / "hub_cards" / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^    benchmarks:\n(?: {6}.*\n)+", text, re.MULTILINE)[0]
    score(folder, [ROW, ROW | {"metric": "recall"}])
    facts = yaml.safe_dump(FACTS, sort_keys=False) + textwrap.dedent(example)
    (folder / "facts.yaml").write_text(facts, encoding="utf-8")
    [content] = render(folder).benchmarks.values()
    [entry] = parse_eval_result_entries(yaml.safe_load(content))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("leondz/wnut_17", "default", 0.4321)
    assert (entry.date, entry.source_name) == ("2026-01-31", "Evaluation log")


# ---- beside the card


def test_the_command_writes_them_beside_the_card(scored):
    result = CliRunner().invoke(app, ["card", str(scored)])
    assert result.stdout == f"Wrote {scored / 'README.md'}.\nWrote {scored / PATH}.\n"
    assert (scored / PATH).read_text(encoding="utf-8") == render(scored).benchmarks[PATH]
    (scored / ".eval_results" / "theirs.yaml").write_text("[]")
    name_benchmarks(scored, {"WNUT 17": BENCHMARK | {"task_id": "b"}})
    write_card(scored)
    names = sorted(path.name for path in (scored / ".eval_results").iterdir())
    assert names == ["their--wnut_17--b.yaml", "theirs.yaml"]


@pytest.mark.parametrize("name", ["README.md", PATH])
def test_an_edited_file_is_kept(scored, name):
    write_card(scored)
    path = scored / name
    path.write_text(path.read_text(encoding="utf-8").replace("0.4321", "0.9"), encoding="utf-8")
    before = {one: one.read_bytes() for one in scored.rglob("*") if one.is_file()}
    with pytest.raises(ElmoError, match="was edited after this command wrote it; say it in"):
        write_card(scored)
    path.write_text("- mine\n", encoding="utf-8")
    with pytest.raises(ElmoError, match="was not written by this command"):
        write_card(scored)
    path.write_bytes(before[path])
    assert {one: one.read_bytes() for one in scored.rglob("*") if one.is_file()} == before


def test_a_link_in_place_of_the_folder(scored, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (scored / ".eval_results").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ElmoError, match="is a link"):
        write_card(scored)
    assert list((tmp_path / "elsewhere").iterdir()) == []


# ---- to the Hub


def test_they_go_up_in_the_commit_of_the_model(board, scored):
    push(scored, NAME)
    assert len(board.repositories[NAME].commits) == 2
    assert sorted(board.files(NAME)) == sorted(
        [".gitattributes", *FILES, *RESULT_FILES, "results/evaluation.json", PATH]
    )
    [entry] = HfApi().model_info(NAME, expand=["evalResults"]).eval_results
    assert (entry.dataset_id, entry.task_id, entry.value) == ("their/wnut_17", "default", 0.4321)
    before = len(board.repositories[NAME].commits)
    push(scored, NAME)
    assert len(board.repositories[NAME].commits) == before


def test_a_dry_run_lists_them(board, scored):
    write_card(scored)
    (scored / ".eval_results" / "mine.yaml").write_text("[]")
    result = CliRunner().invoke(app, ["push", str(scored), NAME, "--dry-run"])
    assert board.requests == []
    lines = result.stdout.splitlines()
    assert PATH in [line.split()[1] for line in lines[:-2]]
    assert lines[-1] == "Not uploaded: .eval_results/mine.yaml."
    assert set(prepare(scored, NAME).files) == {line.split()[1] for line in lines[:-2]}


def test_files_of_others_stay_and_ours_are_replaced(board, scored):
    push(scored, NAME)
    board.commit(NAME, {".eval_results/theirs.yaml": b"[]\n", ".eval_results/notes.txt": b"x"})
    score(scored, [ROW | {"value": 0.5}])
    push(scored, NAME)
    assert yaml.safe_load(board.files(NAME)[PATH])[0]["value"] == 0.5
    name_benchmarks(scored, {"WNUT 17": BENCHMARK | {"task_id": "b"}})
    push(scored, NAME)  # the score of another task replaces it
    names = sorted(name for name in board.files(NAME) if name.startswith(".eval_results/"))
    assert names == [
        f".eval_results/{name}" for name in ("notes.txt", "their--wnut_17--b.yaml", "theirs.yaml")
    ]


def test_a_file_of_others_under_our_name_is_kept(board, scored):
    push(scored, NAME)
    edited = board.files(NAME)[PATH].replace(b"0.4321", b"0.9")
    board.commit(NAME, {PATH: edited})
    assert refused(scored) == f"{NAME} has another {PATH}, which is kept; --overwrite-card replaces it."
    name_benchmarks(scored, {"WNUT 17": BENCHMARK | {"task_id": "b"}})
    push(scored, NAME)
    assert board.files(NAME)[PATH] == edited
    name_benchmarks(scored, {"WNUT 17": BENCHMARK})
    push(scored, NAME, overwrite_card=True)
    assert yaml.safe_load(board.files(NAME)[PATH])[0]["value"] == 0.4321


def test_a_benchmark_that_is_not_there(hub, scored):
    assert refused(scored) == (
        "there is no dataset their/wnut_17 on the Hub, which the facts name as a benchmark; correct its id."
    )
    hub.add_dataset("their/wnut_17", {"train.csv": b"a"})
    assert refused(scored) == (
        "the dataset their/wnut_17 is no benchmark, as it has no eval.yaml; remove it from the facts."
    )
    hub.add_dataset("their/wnut_17", {"eval.yaml": EVAL}, private=True)
    assert "there is no dataset their/wnut_17 on the Hub" in refused(scored)
    hub.add_dataset("their/wnut_17", {"eval.yaml": EVAL.replace(b"default", b"ner")})
    assert refused(scored) == (
        "the benchmark their/wnut_17 has no task default, but b, ner, wnut; correct task_id."
    )
    assert NAME not in hub.repositories


@pytest.mark.parametrize(
    "content", [b"tasks: 5", b"[", b"tasks: [5]", b"\xff", b"tasks:\n- &a {config: default}"]
)
def test_tasks_that_cannot_be_read_are_not_compared(hub, scored, content):
    hub.add_dataset("their/wnut_17", {"eval.yaml": content})
    push(scored, NAME)
    assert PATH in hub.files(NAME)


def test_a_gated_benchmark(hub, scored):
    hub.add_dataset("their/wnut_17", {"eval.yaml": b"tasks: [{id: secret}]"}, gated=True)
    push(scored, NAME)
    assert PATH in hub.files(NAME)


def test_a_hub_that_fails_on_the_way(board, scored):
    board.broken = {"/datasets/": 501}
    assert refused(scored) == f"the Hub answered 501 (something broke); {NAME} is as it was."
    assert NAME not in board.repositories


def test_facts_of_the_repository_are_json_and_yaml(board, scored):
    """The benchmark's results file is the one that the source names."""
    push(scored, NAME)
    [entry] = yaml.safe_load(board.files(NAME)[PATH])
    path = entry["source"]["url"].partition("/blob/main/")[2]
    rows = json.loads(board.files(NAME)[path])["results"][0]["rows"]
    assert entry["value"] in [row["value"] for row in rows]
