"""What the README tells people to type, typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import options, random_softmax, random_weights, write_hdf5

import elmo_hf

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def published_elmo(tmp_path, monkeypatch):
    """A small model in the originals' files, in the folder where the README's reader stands."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "published-elmo"
    folder.mkdir()
    words = ["<S>", "</S>", "<UNK>", "He", "sat", "on", "the", "bank", "."]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = options()
    (folder / "options.json").write_text(
        str(settings).replace("'", '"').replace("True", "true"), encoding="utf-8"
    )
    write_hdf5(folder / "weights.hdf5", random_weights(settings, seed=0))
    write_hdf5(folder / "softmax.hdf5", random_softmax(settings, seed=1, vocab_size=len(words)))
    return folder


def command(line):
    """The line as a process of its own; `elmo-hf` by its module, so that it is this source's."""
    words = shlex.split(line)
    assert words[0] == "elmo-hf"
    runner = [sys.executable, "-c", "from elmo_hf.cli import app; app(prog_name='elmo-hf')"]
    return subprocess.run([*runner, *words[1:]], capture_output=True, text=True, check=False)


def test_every_block_of_the_readme_runs(published_elmo):
    names: dict = {}
    ran = {"bash": 0, "python": 0}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "README.md", "exec"), names)
            ran["python"] += 1
            continue
        for line in block.splitlines():
            line = line.split("&& ")[-1] if line.startswith("pip install") else line
            if line == "pytest":
                continue
            result = command(line)
            assert result.returncode == 0, result.stderr
            ran["bash"] += 1
    assert ran == {"bash": 3, "python": 5}
    assert names["output"].last_hidden_state.shape == (2, 8, 16)
    assert names["vectors"].shape == (2, 4, 16)
    assert not np.isnan(names["loss"].loss.item())


def test_the_way_back_that_the_text_names(published_elmo):
    back = re.search(r"`(elmo-hf convert my-elmo/ back/ --to bilm)`", README)
    for line in ("elmo-hf convert published-elmo/ my-elmo/", back.group(1)):
        result = command(line)
        assert result.returncode == 0, result.stderr
    assert Path("back/options.json").read_bytes() == (published_elmo / "options.json").read_bytes()


def test_the_first_command_shows_what_the_readme_says():
    line = re.search(r"(elmo-hf vectors .*)", BLOCKS[0][1]).group(1)
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
