"""The command and the Space, without the page; ports and mistakes."""

import runpy
import socket
import sys

import yaml
from typer.testing import CliRunner

import elmo_hf.demo
from elmo_hf.cli import app
from elmo_hf.demo import free_port
from elmo_hf.demo.reading import Reader
from tests.helpers.paths import REPOSITORY

SPACE = REPOSITORY / "hub_cards" / "space"


def test_port_that_is_taken(folders):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["demo", "--model", str(folders / "model"), "--port", str(port)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"elmo-hf: port {port} is taken, or not allowed; choose another by --port.\n"
        )
    assert free_port(port=port) == port


def test_missing_gradio_is_one_sentence(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(app, ["demo", "--model", str(folders / "model")])
    assert result.exit_code == 1
    assert result.stderr == "elmo-hf: the demo needs the package gradio; `pip install 'elmo-hf[demo]'`.\n"


def test_command_serves_the_named_models(folders, monkeypatch):
    served = []
    monkeypatch.setattr(elmo_hf.demo, "serve", lambda reader, **options: served.append((reader, options)))
    port = free_port()
    arguments = ["demo", "--tagger", str(folders / "tagger"), "--port", str(port), "--no-browser"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["demo", "--model", str(folders / "model")])
    assert result.exit_code == 0, result.output
    (tiny, first), (loaded, second) = served
    names = (tiny.model.name_or_path, loaded.model.name_or_path)
    assert names == (str(elmo_hf.TINY), str(folders / "model"))
    assert tiny.tagger is not None
    assert loaded.tagger is None
    assert (first["port"], first["browser"], second["browser"]) == (port, False, True)
    assert 7860 <= second["port"] <= 7959


# ---- the Space


def test_space_serves_the_same_page(folders, monkeypatch):
    served = []
    monkeypatch.setattr(elmo_hf.demo, "serve", lambda reader, **options: served.append((reader, options)))
    monkeypatch.setenv("ELMO_MODEL", str(folders / "model"))
    monkeypatch.setenv("ELMO_TAGGER", str(folders / "tagger"))
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    [(reader, options)] = served
    assert isinstance(reader, Reader)
    assert reader.tagger is not None
    assert options == {"host": "0.0.0.0", "port": 7860}


def test_front_matter_of_the_space():
    _, front, _ = (SPACE / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["sdk"] == "gradio"
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60  # the Hub's limit
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours
    assert (SPACE / "requirements.txt").read_text(encoding="utf-8").split() == ["elmo-hf[demo]"]
    project = (SPACE.parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    minimum = tuple(map(int, project.split("gradio>=")[1].split(",")[0].split(".")))
    assert tuple(map(int, front["sdk_version"].split("."))) >= minimum
