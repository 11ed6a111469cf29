"""The folder of the static page: its files, and what is refused before anything is written."""

import json
import re
import subprocess
import sys

import pytest
import yaml

from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer
from elmo_hf.errors import ElmoError
from hub_cards import space_static
from hub_cards.space_static import PAGE, RUNTIME, build


def test_the_folder_is_whole(page_folder):
    names = {path.relative_to(page_folder).as_posix() for path in page_folder.rglob("*") if path.is_file()}
    runtime = {f"onnxruntime/{name}" for name in (*space_static.RUNTIME_FILES.values(), "NOTICE")}
    assert names == {path.name for path in PAGE.iterdir()} | {"model.onnx", "settings.json"} | runtime
    settings = json.loads((page_folder / "settings.json").read_text(encoding="utf-8"))
    for file in settings["files"].values():
        assert (page_folder / file["path"]).stat().st_size == file["bytes"]
    assert (settings["name"], settings["outputs"]) == ("elmo-tiny", ["layer_0", "layer_1", "layer_2"])


def test_every_file_that_the_page_names_is_there(page_folder):
    named = set()
    for path in [*PAGE.glob("*.js"), PAGE / "index.html"]:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'"(?:\./)?((?:onnxruntime/)?[\w.-]+\.(?:js|css|json))"', text))
    assert {"page.js", "style.css", "words.js", "worker.js", "onnxruntime/ort.wasm.min.js"} <= named
    assert [name for name in sorted(named) if not (page_folder / name).is_file()] == []


def test_front_matter_of_the_space():
    _, front_matter, text = (PAGE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(front_matter)
    assert (facts["sdk"], facts["app_file"], facts["license"]) == ("static", "index.html", "apache-2.0")
    assert len(facts["short_description"]) <= 60  # the Hub's limit
    assert all(path.name in text for path in PAGE.iterdir() if path.name != "README.md")


def save(folder, **options):
    shape = {"lstm_dim": 4, "projection_dim": 2, "char_filters": [[1, 2]], "num_highway_layers": 1}
    config = ElmoConfig(**{**shape, **options})
    ElmoModel(config).save_pretrained(folder)
    ElmoTokenizer().save_pretrained(folder)
    return folder


def test_model_of_word_ids(tmp_path):
    folder = save(tmp_path / "model", token_encoder="words", vocab_size=3, char_filters=None)
    with pytest.raises(ElmoError, match=r"reads word ids, and the page has characters; choose a model of ch"):
        build(tmp_path / "page", folder)
    assert not (tmp_path / "page").exists()


def test_model_of_other_letters(tmp_path):
    folder = save(tmp_path / "model", num_characters=300)
    with pytest.raises(
        ElmoError, match=r"reads letters of its own, and the page makes bytes; choose another"
    ):
        build(tmp_path / "page", folder)
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"x", f"archive.tgz is not the archive of {RUNTIME}; fetch it by `npm pack {RUNTIME}`."),
        (None, "archive.tgz cannot be read (No such file or directory); see --runtime."),
    ],
)
def test_another_archive(tmp_path, content, sentence):
    archive = tmp_path / "archive.tgz"
    if content:
        archive.write_bytes(content)
    with pytest.raises(ElmoError, match=re.escape(sentence)):
        build(tmp_path / "page", save(tmp_path / "model"), archive)
    assert not (tmp_path / "page").exists()


def test_machine_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ElmoError, match=r"there is no npm here; fetch onnxruntime-web@\S+ by `npm pack` elsewhere"
    ):
        build(tmp_path / "page", save(tmp_path / "model"))


def test_npm_that_fails(tmp_path, monkeypatch):
    (tmp_path / "npm").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ElmoError, match=r"npm cannot fetch the runtime \(exit status 7\); fetch"):
        build(tmp_path / "page", save(tmp_path / "model"))


def test_output_that_exists(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["space_static.py", str(tmp_path)])
    with pytest.raises(ElmoError, match="is not an empty folder; name another or remove it"):
        space_static.main()


def test_commands_that_publish_a_space():
    """Those of the README are commands and options of huggingface_hub."""
    text = (PAGE / "README.md").read_text(encoding="utf-8")
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("hf ")]
    assert len(commands) == 2
    for command in commands:
        names = [word for word in command[:2] if word.isalpha()]
        program = [sys.executable, "-m", "huggingface_hub.cli.hf", *names, "--help"]
        help_text = subprocess.run(program, capture_output=True, text=True, check=True).stdout
        assert [word for word in command if word.startswith("--") and word not in help_text] == []
