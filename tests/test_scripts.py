"""The scripts of `training/` as the installed package finds them."""

import runpy

import pytest

from elmo_hf import scripts
from tests.helpers.paths import TRAINING


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package that carries two scripts, as the wheel does."""
    monkeypatch.setattr(scripts, "PACKAGE", tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "finetune_x.py").write_text('"""A task."""', encoding="utf-8")
    (tmp_path / "recipes" / "pretrain.py").write_text("main = lambda: 5", encoding="utf-8")
    return tmp_path / "recipes"


def test_the_scripts_of_the_repository():
    names = {path.name for path in scripts.find_scripts()}
    assert names == {path.name for path in TRAINING.glob("*.py")} >= {"pretrain.py", "finetune_ner.py"}


def test_the_scripts_of_a_wheel_win(wheel):
    assert scripts.find_scripts() == [wheel / "finetune_x.py", wheel / "pretrain.py"]
    assert scripts.load_script("pretrain.py").main() == 5
    finetuning = runpy.run_module("elmo_hf.finetuning.__main__", run_name="not main")
    assert finetuning["recipes"]() == {"x": wheel / "finetune_x.py"}
    assert "  x      A task.\n" in finetuning["usage"]()


def test_a_script_that_is_missing_is_one_sentence(wheel):
    (wheel / "pretrain.py").unlink()
    with pytest.raises(scripts.ElmoError, match=r"the script pretrain\.py is not installed"):
        scripts.load_script("pretrain.py")
