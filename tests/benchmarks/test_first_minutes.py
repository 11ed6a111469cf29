"""benchmarks/first_minutes.py: a new user's path, here in this process, and where it ends."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from benchmarks import first_minutes
from tests.helpers.typed import Desk, write_published


@pytest.fixture
def typist(tmp_path, launcher, monkeypatch):
    """What the reader types runs in this process, but for `python -c`, which is for another one."""
    (tmp_path / "desk").mkdir()
    desk = Desk(tmp_path / "desk", launcher)

    def run(words, cwd, env, **_):
        line = shlex.split(words[2])
        if line[:2] == ["python", "-c"]:
            command = [sys.executable, *line[1:]]
            return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
        monkeypatch.chdir(cwd)
        if "HF_ENDPOINT" in env:
            monkeypatch.setattr(constants, "ENDPOINT", env["HF_ENDPOINT"])
            monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
            monkeypatch.setenv("HF_TOKEN", env["HF_TOKEN"])
        desk.type(words[2], "first_minutes.py", {}, ())
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(first_minutes, "subprocess", SimpleNamespace(run=run))
    return desk


# huggingface_hub sends a file by an option of its HTTP library that is going away.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_path_here(typist, tmp_path, monkeypatch):
    published = write_published(tmp_path / "theirs")
    flags = ["--here", "--epochs", "1", "--published", published, "--output", tmp_path / "found.json"]
    monkeypatch.setattr(sys, "argv", ["first_minutes.py", *map(str, flags)])
    first_minutes.main()
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    names = ["first vectors", "convert", "tagger", "card", "push", "load by name", "pipeline"]
    assert [step["step"] for step in found["steps"]] == names
    assert not any(step["warnings"] for step in found["steps"])
    assert found["seconds"] == pytest.approx(sum(step["seconds"] for step in found["steps"]))
    assert str(tmp_path) not in json.dumps(found)
    assert len(typist.ran) == 6


def reader(folder):
    return first_minutes.Reader(folder, dict(os.environ))


def test_a_step_that_fails_or_warns_ends_the_path(tmp_path):
    one = reader(tmp_path)
    assert one.types("fine", "echo one", "echo two; echo '50%|##' >&2; echo heard >&2") == "one\ntwo\n"
    assert one.steps[0]["stderr"] == ["heard"]
    with pytest.raises(SystemExit, match="'false' failed"):
        one.types("fails", "false", "echo never")
    for line in ("echo 'x.py:3: FutureWarning: old'", "echo 'A thing is Deprecated.' >&2"):
        with pytest.raises(SystemExit, match=r"odd warns:\n.*(old|Deprecated)"):
            one.types("odd", line)


def test_sentences_are_words_with_labels_in_three_files(tmp_path):
    first_minutes.write_tagged(tmp_path, None)
    train = (tmp_path / "train.conll").read_text(encoding="utf-8")
    assert train.strip().count("\n\n") == 199
    assert "Ben B-PER\nfinds O\n" in train
    few = tmp_path / "few.conll"
    few.write_text("Ada B-PER\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has 1 sentences, but 300 are needed"):
        first_minutes.write_tagged(tmp_path, few)


def test_a_line_that_the_readme_lacks_is_named():
    with pytest.raises(ValueError, match=r"README\.md has no line that begins with 'elmo-hf sing'"):
        first_minutes.readme_line("elmo-hf sing")


def test_the_kept_result_is_clean_and_its_table_is_that_of_the_page():
    if not first_minutes.RESULT.exists():
        pytest.skip("no result is kept yet; python -m benchmarks.first_minutes writes it")
    found = json.loads(first_minutes.RESULT.read_text(encoding="utf-8"))
    assert {step["step"] for step in found["steps"]} >= {
        "clone",
        "install",
        "first vectors",
        "push",
        "pipeline",
    }
    assert not any(step["warnings"] for step in found["steps"])
    assert not first_minutes.find_warnings(
        "\n".join(line for step in found["steps"] for line in step["stderr"])
    )
    page = Path(first_minutes.PAGE).read_text(encoding="utf-8")
    assert first_minutes.filled(page, found) == page, "run python -m benchmarks.first_minutes --table"
