"""A recipe that is started again in the folder of a run: which seeds are trained, and what is refused."""

import json
import shutil

import pytest

from elmo_hf.errors import ElmoError
from elmo_hf.files import locked_folder
from elmo_hf.finetuning import run as finetuning
from elmo_hf.finetuning.resuming import written_to
from elmo_hf.finetuning.run import DecodingTrainer
from training import finetune_pos

WORDS = [("He", "PRON"), ("can", "AUX"), ("see", "VERB"), ("Ada", "PROPN"), ("she", "PRON"), ("left", "VERB")]


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def write_text(path, words=WORDS):
    lines = [f"{n}\t{word}\t_\t{tag}" + 6 * "\t_" + "\n" for n, (word, tag) in enumerate(words, start=1)]
    path.write_text(("".join(lines) + "\n") * 12, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "ud.conllu")


@pytest.fixture
def start(text, same_file, call):
    """Starts the recipe with a text and further flags, those that come later in place of earlier ones."""

    def run(output, *flags, text=text, seeds=(0, 1)):
        sizes = ["--smoke", "--epochs", 2, "--batch-size", 6]
        call(finetune_pos, *same_file(text), *sizes, "--output", output, "--seeds", *seeds, *flags)

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A place for a finished run of the seeds 0 and 1, which the first test that needs it makes."""
    return tmp_path_factory.mktemp("finished") / "run"


@pytest.fixture
def output(finished, start, tmp_path):
    """A copy of the finished run."""
    if not finished.exists():
        start(finished)
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def trained(monkeypatch):
    """The seeds that are trained, in place of training them."""
    seeds = []

    def fake(task, start, data, seed):
        seeds.append(seed)
        scores = {"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.5}}
        return scores | {"epochs": 1}, {}

    monkeypatch.setattr(finetuning, "run_seed", fake)
    return seeds


def results_in(output):
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


def without_times(results):
    runs = results["runs"].values()
    times = ("seconds", "processor_seconds")
    scores = [{name: value for name, value in run.items() if name not in times} for run in runs]
    flags = {name: value for name, value in results["flags"].items() if name != "output"}
    return results | {"runs": dict(zip(results["runs"], scores, strict=True)), "flags": flags}


MOMENTS = {  # in the second seed: what does not return, and how often it returns before
    "within an epoch": (DecodingTrainer, "training_step", 6),
    "before its folder is whole": (finetuning, "write_evaluation", 1),
    "before its scores are kept": (finetuning, "mean_scores", 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_ends_in_the_results_of_an_undisturbed_one(output, start, tmp_path, monkeypatch, moment):
    owner, name, lives = MOMENTS[moment]
    real, calls, seeds, other = getattr(owner, name), [], [], tmp_path / "other"

    def killing(*arguments, **options):
        calls.append(name)
        if len(calls) > lives:
            raise Killed
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killing)
        with pytest.raises(Killed):
            start(other)
    assert list(results_in(other)["runs"]) == ["0"]
    run_seed = finetuning.run_seed
    monkeypatch.setattr(finetuning, "run_seed", lambda *words: seeds.append(words[-1]) or run_seed(*words))
    start(other)
    assert seeds == [1]
    assert without_times(results_in(other)) == without_times(results_in(output))
    assert {path.name for path in other.iterdir()} == {path.name for path in output.iterdir()}
    weights = [(folder / "seed-1" / "model.safetensors").read_bytes() for folder in (other, output)]
    assert weights[0] == weights[1]


def test_finished_seeds_are_not_trained_again(output, start, trained, capsys):
    before = results_in(output)
    start(output)
    assert trained == []
    assert results_in(output) == before
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1]
    assert lines[0]["test"] == before["runs"]["0"]["test"]
    start(output, seeds=(0, 2))
    assert trained == [2]
    results = results_in(output)
    assert list(results["runs"]) == ["0", "1", "2"]
    assert "accuracy_deviation" in results["mean"]["test"]


def test_predictions_are_those_of_the_saved_model(output, start):
    start(output, "--predictions", seeds=(0,))
    path = output / "predictions" / "seed-0-test.jsonl"
    before = path.read_bytes()
    (output / "results.json").unlink()  # as our message for damaged results says
    path.write_text("of another model\n", encoding="utf-8")
    start(output, "--predictions", seeds=(0,))
    assert path.read_bytes() == before


def test_the_text_may_move_but_not_change(output, start, trained, tmp_path):
    start(output, text=write_text(tmp_path / "moved.conllu"))
    others = write_text(tmp_path / "changed.conllu", [*WORDS[:-1], ("right", "VERB")])
    with pytest.raises(ElmoError, match=r"run holds the results of a run with another content of --train \("):
        start(output, text=others)
    assert trained == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--epochs", 3],
            r"with another --epochs \(2, now 3\); go on with the same, or name another --output",
        ),
        (["--set", "task_dropout=0.1"], r"with another --set \(\[\], now \['task_dropout=0.1'\]\)"),
    ],
)
def test_other_settings_are_refused(output, start, trained, flags, message):
    before = results_in(output)
    with pytest.raises(ElmoError, match=message):
        start(output, *flags, seeds=(0, 1, 2))
    assert trained == []
    assert results_in(output) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 1000),
        lambda folder: shutil.rmtree(folder),
        lambda folder: (folder / "results" / "evaluation-pos.json").write_text("[" * 100_000),
        lambda folder: (folder / "results" / "evaluation-pos.json").write_text('{"mean": {}, "seed": 0}'),
        lambda folder: (folder / "config.json").write_text("{"),
    ],
)
def test_a_seed_whose_model_is_damaged_is_trained_again(output, start, trained, damage):
    damage(output / "seed-0")
    start(output)
    assert trained == [0]


FORM = {"task": "pos", "flags": {}, "config": {}, "examples": {}, "runs": {}}
WRONG_FORMS = [
    {"runs": 5},
    FORM | {"flags": 1},
    FORM | {"runs": {"0": {"dev": {"accuracy": "x"}, "test": {}}}},
    FORM | {"runs": {"0": {"dev": {"accuracy": 10**400}, "test": {}}}},
    FORM | {"runs": {"first": {"dev": {}, "test": {}}}},
    FORM | {"runs": {"0": {"dev": {"a": 1}, "test": {}}, "1": {"dev": {"b": 1}, "test": {}}}},
]
NO_JSON = [b"", b"\0" * 100, b"[" * 100_000, b"\xff", b"9" * 5000]


@pytest.mark.parametrize("content", [*NO_JSON, *(json.dumps(form).encode() for form in WRONG_FORMS)])
def test_damaged_results_are_one_sentence(output, start, trained, content):
    (output / "results.json").write_bytes(content)
    with pytest.raises(ElmoError, match=r"results\.json is .*damaged") as error:
        start(output)
    assert "\n" not in str(error.value)
    assert trained == []


def test_one_run_at_a_time(output, start, trained):
    with locked_folder(output), pytest.raises(ElmoError, match="run is in use by process"):
        start(output)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[inline_container.cc]")]
)
def test_a_full_disk_keeps_the_finished_seeds(output, start, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(finetuning, "run_seed", fail)
    with pytest.raises(ElmoError, match=r"run: (No space left|a file could not).*; mend that, and the same"):
        start(output, seeds=(0, 1, 2))
    assert list(results_in(output)["runs"]) == ["0", "1"]


def test_errors_of_writing_name_what_is_written(tmp_path):
    copying = OSError(28, "No space left on device", "source.py", None, "target.py")
    with (
        pytest.raises(ElmoError, match=r"^target\.py: No space left on device; mend that"),
        written_to(tmp_path),
    ):
        raise copying
    for error in (BrokenPipeError(), RuntimeError("a fault of ours")):
        with pytest.raises(type(error)), written_to(tmp_path):
            raise error
