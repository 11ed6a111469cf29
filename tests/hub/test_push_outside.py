"""Nothing from outside of the folder is uploaded, whatever its files name; and no secrets of the folder."""

import json
import os
import shutil
from pathlib import Path

import pytest

import elmo_hf.hub.push
from elmo_hf import ElmoForPreTraining
from elmo_hf.hub.push import prepare, push
from tests.helpers.hub_folders import NAME, edit, refused

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def sharded(folder):
    ElmoForPreTraining.from_pretrained(folder).save_pretrained(folder, max_shard_size="5KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    return folder


# ---- links and other things that are no files


@pytest.mark.parametrize(
    "name",
    [
        *(
            "model.safetensors",
            "config.json",
            "tokenizer_config.json",
            "vocab.txt",
            "facts.yaml",
            "words_elmo.py",
        ),
        *(
            "results/run.json",
            "results/log.png",
            "results/notes.md",
            "README.md",
            "added_tokens.json",
            "results",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["absolute", "relative", "chain", "dangling"])
def test_links_are_refused(hub, folder, name, kind):
    path, outside = folder / name, folder.parent / "outside"
    if path.exists():
        path.rename(outside)
    else:
        outside.write_text("x", encoding="utf-8")
    target = {"relative": os.path.relpath(outside, path.parent), "dangling": "/nowhere/at/all"}.get(
        kind, outside
    )
    if kind == "chain":
        (folder / "between").symlink_to(outside)
        target = folder / "between"
    path.symlink_to(target)
    assert "is a link, whose target may be" in refused(folder)
    assert hub.requests == []


def test_links_inside_the_folder_are_refused_too(hub, folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    assert "model.safetensors is a link" in refused(folder)


def test_a_snapshot_in_the_cache_is_refused(hub, folder, tmp_path):
    """Its files are links to blobs; a copy of it is uploaded."""
    snapshot, blobs = tmp_path / "models--x--y" / "snapshots" / "1a", tmp_path / "models--x--y" / "blobs"
    shutil.copytree(folder, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert "copy the f" in refused(snapshot)
    shutil.copytree(snapshot, tmp_path / "copy")
    assert set(prepare(tmp_path / "copy", NAME).files) == set(prepare(folder, NAME).files)


@pytest.mark.parametrize(
    "name", ["vocab.txt", "config.json", "results/zz.json", "results/zz.png", "README.md"]
)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(hub, folder, name, make):
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    assert f"{name} is not a file." in refused(folder)


def test_a_folder_may_be_reached_by_a_link_and_have_any_name(hub, folder, monkeypatch):
    """Its user named it; and a path of the shell is none of Python's."""
    monkeypatch.chdir(folder.parent)
    (folder.parent / "~").mkdir()
    (folder.parent / "~" / "elmo").symlink_to(folder)
    push("~/elmo", NAME)
    assert hub.files(NAME)["model.safetensors"] == (folder / "model.safetensors").read_bytes()


# ---- names in files


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "../x.Y",
            "/etc/x.Y",
            "other/repo--modeling_elmo.ElmoModel",
            "sub/x.Y",
            "sub.x.Y",
            "x",
            ".x.Y",
            "x.Y\n",
        ),
        *(
            "..x.Y",
            "",
            5,
            {"a": 1},
            ["a.B", ["c.D"]],
            "x\u202e.Y",
            "\uff4d\uff4f\uff44\uff45\uff4c.Y",
            "C:\\x.Y",
        ),
    ],
)
def test_classes_elsewhere(hub, folder, reference):
    for name in ("config.json", "tokenizer_config.json"):
        original = (folder / name).read_text(encoding="utf-8")
        classes = json.loads(original)["auto_map"]
        edit(folder / name, auto_map=classes | {"AutoModelForMaskedLM": reference})
        assert "must name a class as FILE.CLASS, of a file in the folder" in refused(folder)
        (folder / name).write_text(original, encoding="utf-8")
    assert hub.requests == []


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", '{"auto_map": []}', '{"auto_map": 5}', "[" * 100_000, '{"a": NaN}']
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_configs_that_are_none(hub, folder, name, text):
    (folder / name).write_text(text, encoding="utf-8")
    assert name in refused(folder)


@pytest.mark.parametrize(
    "statement", ["from ..secret import x", "from .sub.secret import x", "import ./../x"]
)
def test_code_elsewhere(hub, folder, statement):
    (folder.parent / "secret.py").write_text("x = 1\n", encoding="utf-8")
    with (folder / "words_elmo.py").open("a", encoding="utf-8") as file:
        file.write(f"\n    {statement}\n".replace("import ./", "import ."))
    assert "which is not beside it; copy what it needs." in refused(folder)


def test_code_that_is_no_text(hub, folder):
    (folder / "words_elmo.py").write_bytes(b"\xff\xfe")
    assert "words_elmo.py is not text in UTF-8" in refused(folder)


@pytest.mark.parametrize(
    "shard",
    ["../outside.safetensors", "/etc/x.safetensors", "sub/x.safetensors", ".x.safetensors", "x.bin", 7, None],
)
def test_shards_elsewhere(hub, sharded, shard):
    path = sharded / "model.safetensors.index.json"
    shutil.copy(next(sharded.glob("model-*.safetensors")), sharded.parent / "outside.safetensors")
    weights = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    edit(path, weight_map=weights | {next(iter(weights)): shard})
    assert "must be the name of a .safetensors file in the folder" in refused(sharded)


def test_a_shard_that_is_a_link_or_missing(hub, sharded):
    shard = next(sharded.glob("model-*.safetensors"))
    shard.rename(sharded.parent / "outside")
    assert f"there is no file {shard}." in refused(sharded)
    shard.symlink_to(sharded.parent / "outside")
    assert f"{shard} is a link" in refused(sharded)


@pytest.mark.parametrize(
    "name", ["a\nb.json", "\x1b[2J.json", "a\u202egnp.json", "~a.md", "a\\b.png", "\udcff.json"]
)
def test_names_of_results(hub, folder, name):
    (folder / "results" / name).write_text("{}", encoding="utf-8")
    sentence = refused(folder)
    assert "rename it to" in sentence
    assert sentence.isprintable()


# ---- what stays


def test_secrets_and_what_a_training_leaves_stay(hub, folder):
    """The list of a dry run is what is sent."""
    plan = prepare(folder, NAME)
    secrets = [
        *(
            ".env",
            ".git/config",
            ".huggingface/token",
            "token",
            "optimizer.safetensors",
            "optimizer.pt",
            "trainer.bin",
        ),
        *(
            "training_args.bin",
            "scheduler.pt",
            ".unfinished-final/model.safetensors",
            "model.safetensors.partial",
        ),
        *(
            "results/.env.json",
            "results/run.json.partial",
            "results/keys/a.json",
            "results/notes.txt",
            ".lock",
        ),
        *("checkpoint-7/model.safetensors", "__pycache__/words_elmo.pyc", ".DS_Store", "credentials.json"),
        *("setup.py", "model-00001-of-00002.safetensors", ".safetensors", "notes\x1b[2J\n.txt"),
    ]
    for name in secrets:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"secret")
    with_secrets = prepare(folder, NAME)
    assert with_secrets.sizes() == plan.sizes()
    assert {".env", ".git/", "optimizer.safetensors", "results/.env.json", "results/keys/"} <= set(
        with_secrets.stays
    )
    assert all(name.isprintable() for name in with_secrets.stays)
    push(folder, NAME)
    sent = hub.files(NAME)
    assert {name: len(content) for name, content in sent.items() if name != ".gitattributes"} == plan.sizes()
    assert b"secret" not in sent.values()
    for number in range(100):
        (folder / f"{number}.tmp").touch()
    assert prepare(folder, NAME).stays[-1].startswith("and ")


# ---- changes on the way


def swap_for_a_link(path):
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def rewrite(path):
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "results/run.json"])
@pytest.mark.parametrize("change", [swap_for_a_link, rewrite, Path.unlink])
def test_a_file_that_changes_after_the_checks(hub, folder, monkeypatch, name, change):
    look_up = elmo_hf.hub.push.look_up

    def change_and_look_up(*arguments):
        if (folder / name).is_file() and not (folder / name).is_symlink():
            change(folder / name)
        return look_up(*arguments)

    push(folder, NAME)
    before = hub.repositories[NAME].branches["main"]
    monkeypatch.setattr(elmo_hf.hub.push, "look_up", change_and_look_up)
    sentence = refused(folder)
    assert name in sentence
    assert hub.repositories[NAME].branches["main"] == before
