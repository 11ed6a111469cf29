"""What the README tells people to type, typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import elmo_hf
from elmo_hf import kernels
from tests.helpers.paths import REPOSITORY
from tests.helpers.typed import Desk, blocks, write_published, write_tagged, write_texts

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks(REPOSITORY / "README.md")
# The test that follows runs what a reader types; these lines are run by .ci/run, on a bare machine, and the
# extras that they install are those of the project's own environment for development.
INSTALLED_ELSEWHERE = ["pip install torch==2.13.0", "pip install .", "pip install torch==2.13.0"]
INSTALLED_ELSEWHERE += ["pip install -e '.[dev]'", "pytest", "pip install '.[demo]'"]
# What would run for long: a model as large as the README's, 75 epochs.
CUT = {
    "training/pretrain.py": "--lstm-dim 16 --projection-dim 8 --char-filters [[1,4],[2,8]] --log-every 1",
    "training/finetune_ner.py": "--epochs 2",
}


@pytest.fixture
def published_elmo(tmp_path, monkeypatch):
    """A small model in the originals' files, in the folder where the README's reader stands."""
    monkeypatch.chdir(tmp_path)
    return write_published(tmp_path / "published-elmo")


def command(line):
    """The line as a process of its own; `elmo-hf` by its module, so that it is this source's."""
    words = shlex.split(line)
    assert words[0] == "elmo-hf"
    runner = [sys.executable, "-c", "from elmo_hf.cli import app; app(prog_name='elmo-hf')"]
    return subprocess.run([*runner, *words[1:]], capture_output=True, text=True, check=False)


# huggingface_hub sends a file by an option of its HTTP library that is going away.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_every_block_of_the_readme_runs(published_elmo, tmp_path, launcher, hub):
    for name in ("gradio", "onnx", "onnxruntime", "matplotlib"):
        pytest.importorskip(name, reason='the README needs pip install -e ".[dev]"')
    write_texts(tmp_path)
    write_tagged(tmp_path)
    desk = Desk(tmp_path, launcher, hub)
    try:
        desk.read(REPOSITORY / "README.md", CUT, skip=["pytest"])
    finally:
        kernels.use("auto")
    assert desk.skipped == INSTALLED_ELSEWHERE
    assert desk.names["output"].last_hidden_state.shape == (2, 8, 256)
    assert desk.names["vectors"].shape == (2, 4, 256)
    assert 0 < desk.names["loss"].item() < 20
    card = (tmp_path / "runs/ner/seed-0/README.md").read_text(encoding="utf-8")
    assert "\npython training/finetune_ner.py --elmo my-elmo --train train.conll " in card
    assert {"README.md", "model.safetensors", "results/evaluation-ner.json"} <= {
        *hub.files("someone/my-tagger")
    }
    assert (tmp_path / "runs" / "news" / "log.png").stat().st_size > 1000


def test_what_the_readme_shows_is_shown_or_written_by_its_commands():
    """Besides code there are one text, which a test below compares, and one file, which a card needs."""
    others = [one for one in BLOCKS if one.language not in ("bash", "shell", "python", "py")]
    assert [one.language for one in others] == ["text", "yaml"]


def test_the_way_back_that_the_text_names(published_elmo):
    back = re.search(r"`(elmo-hf convert my-elmo/ back/ --to bilm)`", README)
    for line in ("elmo-hf convert published-elmo/ my-elmo/", back.group(1)):
        result = command(line)
        assert result.returncode == 0, result.stderr
    assert Path("back/options.json").read_bytes() == (published_elmo / "options.json").read_bytes()


def test_the_first_command_shows_what_the_readme_says():
    line = re.search(r"(elmo-hf vectors .*)", BLOCKS[0].text).group(1)
    shown = re.search(r"^```text\n(.*?)^```", README, re.MULTILINE | re.DOTALL).group(1)
    result = command(line)
    assert result.stderr == ""
    assert shown.strip("\n") in result.stdout


def test_vectors_as_json_lines(published_elmo):
    command("elmo-hf convert published-elmo my-elmo")
    result = command('elmo-hf vectors "The bank." --model my-elmo --json')
    assert result.stderr == ""
    lines = [eval(line) for line in result.stdout.splitlines()]
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
def test_mistakes_on_the_command_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = command(line)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "call"), re.findall(r"^\| `(Elmo\w+)` \|.*?`(model\.\w+\(.*?\))`", README, re.MULTILINE)
)
def test_the_calls_in_the_table_of_tasks_run(name, call):
    shape = {"lstm_dim": 12, "projection_dim": 8, "char_filters": [[1, 4]], "vocab_size": 3}
    model = getattr(elmo_hf, name)(elmo_hf.ElmoConfig(**shape, task_hidden_size=5)).eval()
    found = eval(call, {"model": model, "tokenizer": elmo_hf.ElmoTokenizer()})
    if name == "ElmoForQuestionAnswering":
        assert found["answer"] == "At last, Ada paid."[found["start"] : found["end"]]
        assert 0 < found["score"] < 1
    else:
        assert all(len(mention) == 3 for cluster in found for mention in cluster)


def test_the_table_of_tasks_names_every_head_with_its_call():
    heads = {name for name in elmo_hf.__all__ if name.startswith("ElmoFor")} - {"ElmoForPreTraining"}
    assert set(re.findall(r"^\| `(Elmo\w+)` \|", README, re.MULTILINE)) == heads
    assert "`model.answer(" in README
    assert "`model.predict(" in README
