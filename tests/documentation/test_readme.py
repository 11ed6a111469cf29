"""The commands and code of the README run and print what it shows."""

import json
import re
import shlex
from pathlib import Path

import pytest

import elmo_hf
from elmo_hf import kernels
from tests.helpers.documents import DocumentRunner, read_blocks, write_published, write_tagged, write_texts
from tests.helpers.paths import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = read_blocks(REPOSITORY / "README.md")
# .ci/run runs these lines in an empty environment; the development environment has the extras already.
INSTALLED_ELSEWHERE = ["pip install torch==2.13.0", "pip install .", "pip install torch==2.13.0"]
INSTALLED_ELSEWHERE += ["pip install -e '.[dev]'", "pytest", "pip install '.[demo]'"]
# Flags that shorten long runs.
EXTRA_FLAGS = {
    "training/pretrain.py": "--lstm-dim 16 --projection-dim 8 --char-filters [[1,4],[2,8]] --log-every 1 "
    "--heldout-every 2",
    "elmo-hf vocab": "--heldout-every 2",  # the test's text is short
    "training/finetune_ner.py": "--epochs 2",
}


@pytest.fixture
def published_elmo(tmp_path, monkeypatch):
    """A small model in the original file format, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_published(tmp_path / "published-elmo")


@pytest.fixture
def command(fork_server, tmp_path):
    """Run an `elmo-hf` line in a process of its own, offline, with this repository's code."""

    def run(line):
        words = shlex.split(line)
        assert words[0] == "elmo-hf"
        program = "from elmo_hf.cli import app; app(prog_name='elmo-hf')"
        return fork_server.run(program, *words[1:], cwd=tmp_path)

    return run


# huggingface_hub uses a deprecated option of its HTTP library to send a file.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_every_block_of_the_readme_runs(published_elmo, tmp_path, launcher, hub):
    for name in ("gradio", "onnx", "onnxruntime", "matplotlib"):
        pytest.importorskip(name, reason='the README needs pip install -e ".[dev]"')
    write_texts(tmp_path)
    write_tagged(tmp_path)
    runner = DocumentRunner(tmp_path, launcher, hub)
    try:
        runner.run(REPOSITORY / "README.md", EXTRA_FLAGS, skip=["pytest"])
    finally:
        kernels.use("auto")
    assert runner.skipped == INSTALLED_ELSEWHERE
    assert runner.names["output"].last_hidden_state.shape == (2, 8, 256)
    assert runner.names["vectors"].shape == (2, 4, 256)
    assert 0 < runner.names["loss"].item() < 20
    card = (tmp_path / "runs/ner/seed-0/README.md").read_text(encoding="utf-8")
    assert "\npython training/finetune_ner.py --elmo my-elmo --train train.conll " in card
    assert {"README.md", "model.safetensors", "results/evaluation-ner.json"} <= {
        *hub.files("someone/my-tagger")
    }
    assert (tmp_path / "runs" / "news" / "log.png").stat().st_size > 1000


def test_blocks_that_are_not_code():
    """There are two: an output, which a test below compares, and a file, which a card needs."""
    others = [block for block in BLOCKS if block.language not in ("bash", "shell", "python", "py")]
    assert [block.language for block in others] == ["text", "yaml"]


def test_converting_back_as_the_text_says(published_elmo, command):
    match = re.search(r"`(elmo-hf convert my-elmo/ back/ --to bilm)`", README)
    for line in ("elmo-hf convert published-elmo/ my-elmo/", match.group(1)):
        result = command(line)
        assert result.code == 0, result.err
    assert Path("back/options.json").read_bytes() == (published_elmo / "options.json").read_bytes()


def test_the_output_of_the_first_command_is_in_the_readme(command):
    line = re.search(r"(elmo-hf vectors .*)", BLOCKS[0].text).group(1)
    shown = re.search(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)
    result = command(line)
    assert result.err == ""
    assert shown.strip("\n") in result.out


def test_the_training_of_the_model_as_its_runs_recorded_it():
    first = REPOSITORY / "benchmarks" / "results" / "training" / "elmo_tiny_first.json"
    second = REPOSITORY / "hub_cards" / "elmo-tiny" / "results" / "run.json"
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
    words, hours = (sum(run[key] for run in runs) for key in ("words", "hours"))
    assert f"{words / 1e6:.0f} million words in {hours:.0f} hours on two cores" in README
    assert all(run["machine"]["cores"] == 2 for run in runs)


@pytest.mark.usefixtures("published_elmo")
def test_vectors_as_json_lines(command):
    command("elmo-hf convert published-elmo my-elmo")
    result = command('elmo-hf vectors "The bank." --model my-elmo --json')
    assert result.err == ""
    lines = [eval(line) for line in result.out.splitlines()]
    assert [line["word"] for line in lines] == ["The", "bank", "."]
    assert all(len(line["vector"]) == 16 for line in lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("elmo-hf vectors hello --model nowhere/at-all", "nowhere/at-all"),
        ("elmo-hf convert nowhere target", "nowhere"),
        ("elmo-hf convert one two target --to bilm", "converts one folder, but got 2"),
    ],
)
def test_mistakes_on_the_command_line(line, message, command, tmp_path):
    result = command(line)
    assert result.code == 1
    assert message in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "call"), re.findall(r"^\| `(Elmo\w+)` \|.*?`(model\.\w+\(.*?\))`", README, re.MULTILINE)
)
def test_the_calls_in_the_table_of_tasks_run(name, call):
    shape = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4]], "vocab_size": 3}
    model = getattr(elmo_hf, name)(elmo_hf.ElmoConfig(**shape, task_hidden_size=5)).eval()
    prediction = eval(call, {"model": model, "tokenizer": elmo_hf.ElmoTokenizer()})
    if name == "ElmoForQuestionAnswering":
        assert prediction["answer"] == "At last, Ada paid."[prediction["start"] : prediction["end"]]
        assert 0 < prediction["score"] < 1
    else:
        assert all(len(mention) == 3 for cluster in prediction for mention in cluster)


def test_the_table_of_tasks_names_every_head_with_its_call():
    heads = {name for name in elmo_hf.__all__ if name.startswith("ElmoFor")} - {"ElmoForPreTraining"}
    assert set(re.findall(r"^\| `(Elmo\w+)` \|", README, re.MULTILINE)) == heads
    assert "`model.answer(" in README
    assert "`model.predict(" in README
