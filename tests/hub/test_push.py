"""Uploads to a local Hub: what is sent, which README.md is kept, and the command."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from elmo_hf import ElmoForPreTraining, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.hub.card import write_card
from elmo_hf.hub.push import prepare, push
from elmo_hf.hub.reading import MAX_BYTES
from elmo_hf.hub.signature import MARK, sign, unsigned
from elmo_hf.loading import describe_model
from tests.helpers.hub_folders import FILES, NAME, RESULT_FILES, edit, refused
from tests.helpers.letters import letters_json, lexicons

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# ---- what is sent


def test_everything_goes_up_in_one_commit(hub, folder):
    (folder / "training").mkdir()
    (folder / "training" / "optimizer.safetensors").write_bytes(b"much")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    shown = ["results/log.png", "results/probes.md"]
    for name in [*shown, "results/log.png.partial"]:
        (folder / name).write_bytes(b"shown on the card")
    address = push(folder, NAME)
    files = hub.files(NAME)
    assert sorted(files) == sorted([".gitattributes", *FILES, *RESULT_FILES, *shown])
    assert len(hub.repositories[NAME].commits) == 2
    assert address == f"{hub.url}/{NAME}/commit/{hub.repositories[NAME].branches['main']}"
    assert not hub.repositories[NAME].private
    for name in set(files) - {".gitattributes", "README.md"}:
        assert files[name] == (folder / name).read_bytes()
    card = files["README.md"].decode("utf-8")
    assert f'AutoModel.from_pretrained("{NAME}", trust_remote_code=True)' in card
    assert "valid.books" in card
    assert "(results/log.png)" in card


def test_large_files_go_by_lfs(hub, folder):
    push(folder, NAME)
    weights = (folder / "model.safetensors").read_bytes()
    assert hub.stored == {hashlib.sha256(weights).hexdigest(): weights}


def test_the_same_again_changes_nothing(hub, folder):
    push(folder, NAME)
    before = hub.repositories[NAME].branches["main"]
    assert push(folder, NAME) == f"{hub.url}/{NAME}/commit/{before}"
    assert len(hub.repositories[NAME].commits) == 2
    assert hub.count("PUT ") == 1


def test_a_private_repository(hub, folder):
    push(folder, NAME, private=True)
    assert hub.repositories[NAME].private
    push(folder, NAME, private=True)
    hub.repositories[NAME].private = False
    assert f"{NAME} is there and public" in refused(folder, private=True)


def test_a_branch_starts_from_main(hub, folder):
    push(folder, NAME)
    main = hub.repositories[NAME].branches["main"]
    ElmoModel.from_pretrained(folder).save_pretrained(folder)
    push(folder, NAME, branch="vectors/only", overwrite_card=True)
    assert hub.repositories[NAME].branches["main"] == main
    assert hub.files(NAME, "vectors/only")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub.files(NAME, "main")["model.safetensors"] != (folder / "model.safetensors").read_bytes()
    push(folder, NAME, branch="vectors/only")  # which exists now


def test_a_pull_request_of_somebody_without_rights(hub, folder, monkeypatch):
    push(folder, NAME)
    main = hub.repositories[NAME].branches["main"]
    monkeypatch.setenv("HF_TOKEN", "guest")
    edit(folder / "results" / "shapes.json", minutes=7)
    assert push(folder, NAME, create_pr=True) == f"{hub.url}/{NAME}/discussions/1"
    assert hub.repositories[NAME].branches["main"] == main
    assert b'"minutes": 7' in hub.files(NAME, "refs/pr/1")["results/shapes.json"]
    assert "there is no repository guest/new for a pull request" in refused(
        folder, "guest/new", create_pr=True
    )
    assert "leave out the branch other" in refused(folder, branch="other", create_pr=True)


def test_weights_under_other_names_are_removed(hub, folder):
    """A model.safetensors beside shards would be loaded in place of them."""
    push(folder, NAME)
    model = ElmoForPreTraining.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="5KB")
    edit(folder / "results" / "run.json", model=describe_model(folder))
    push(folder, NAME)
    weights = [name for name in hub.files(NAME) if "safetensors" in name]
    assert "model.safetensors" not in weights
    assert "model.safetensors.index.json" in weights
    assert len(weights) > 2
    assert sorted(weights) == sorted(path.name for path in folder.glob("*safetensors*"))


def test_facts_in_another_folder_and_a_readme_without_facts(hub, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "facts.yaml").rename(elsewhere / "facts.yaml")
    (folder / "results").rename(elsewhere / "results")
    assert "has no card: write facts.yaml" in refused(folder)
    push(folder, NAME, facts=elsewhere / "facts.yaml", results=elsewhere / "results")
    assert sorted(hub.files(NAME)) == sorted([".gitattributes", *FILES, *RESULT_FILES])
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n", encoding="utf-8")
    push(folder, NAME, overwrite_card=True)
    assert hub.files(NAME)["README.md"] == (folder / "README.md").read_bytes()


# ---- a README.md on the Hub


def test_another_readme_is_kept(hub, folder):
    push(folder, NAME)
    hub.commit(NAME, {"README.md": b"# Theirs\n"})
    before = len(hub.repositories[NAME].commits)
    assert refused(folder) == f"{NAME} has another README.md, which is kept; --overwrite-card replaces it."
    asked = []
    assert "has another README.md" in refused(folder, ask=lambda question: bool(asked.append(question)))
    assert asked == [f"{NAME} has another README.md; overwrite it?"]
    assert hub.files(NAME)["README.md"] == b"# Theirs\n"
    assert len(hub.repositories[NAME].commits) == before
    push(folder, NAME, ask=lambda _: True)
    assert b"valid.books" in hub.files(NAME)["README.md"]
    hub.commit(NAME, {"README.md": b"# Theirs\n"})
    push(folder, NAME, overwrite_card=True)
    assert b"valid.books" in hub.files(NAME)["README.md"]


def test_a_changed_card_of_ours_is_replaced(hub, folder):
    push(folder, NAME)
    earlier = hub.files(NAME)["README.md"].decode("utf-8")
    hub.commit(NAME, {"README.md": earlier.replace("\n", "\r\n").encode("utf-8")})  # by a git that does so
    edit(folder / "results" / "shapes.json", minutes=7)
    push(folder, NAME)
    card = hub.files(NAME)["README.md"].decode("utf-8")
    assert "for 7 minutes" in card
    assert "for 7 minutes" not in earlier
    assert hub.count("PUT ") == 1  # the weights are there already


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("# A test", "# A better title"),
        ("license: apache-2.0", "license: mit"),
        ("SHA-256: ", "SHA-256: 0"),
        ("change those, not this.", "change those."),
        ("It is not trained.", "It is not trained. "),
    ],
)
def test_a_card_of_ours_that_was_edited_is_kept(hub, folder, text, other):
    push(folder, NAME)
    edited = hub.files(NAME)["README.md"].replace(text.encode(), other.encode(), 1)
    assert edited != hub.files(NAME)["README.md"]
    hub.commit(NAME, {"README.md": edited})
    edit(folder / "results" / "shapes.json", minutes=7)
    assert refused(folder) == f"{NAME} has another README.md, which is kept; --overwrite-card replaces it."
    assert hub.files(NAME)["README.md"] == edited


def test_a_card_of_0_1_0_has_no_checksum(hub, folder):
    """So whether it was edited is not known, unless it is the new one in all else."""
    push(folder, NAME)
    new = hub.files(NAME)["README.md"]
    hub.commit(NAME, {"README.md": unsigned(new.decode("utf-8")).encode("utf-8")})
    assert b"SHA-256:" not in hub.files(NAME)["README.md"]
    push(folder, NAME)
    assert hub.files(NAME)["README.md"] == new
    hub.commit(NAME, {"README.md": unsigned(new.decode("utf-8")).encode("utf-8")})
    edit(folder / "results" / "shapes.json", minutes=7)
    assert "has another README.md, which is kept" in refused(folder)


def test_a_card_of_the_folder_that_0_1_0_wrote(hub, folder):
    path = write_card(folder)
    path.write_text(unsigned(path.read_text(encoding="utf-8")), encoding="utf-8")
    push(folder, NAME)
    assert b"SHA-256:" in hub.files(NAME)["README.md"]


@pytest.mark.parametrize("content", [b"\xff\xfe", sign(f"# {MARK}\n{'x' * MAX_BYTES}").encode()])
def test_a_readme_that_is_no_small_text_is_kept(hub, folder, content):
    push(folder, NAME)
    hub.commit(NAME, {"README.md": content})
    assert "has another README.md, which is kept" in refused(folder)


def test_a_readme_that_cannot_be_read(hub, folder):
    push(folder, NAME)
    hub.commit(NAME, {"README.md": b"# Theirs\n"})
    hub.broken = {"/resolve/": 501}
    assert refused(folder) == f"the Hub answered 501 (something broke); {NAME} is as it was."


# ---- Adagrad's sums


def save_sums(folder, shape=None):
    weights = load_file(folder / "model.safetensors")
    sums = {name: torch.ones(shape or weight.shape) for name, weight in weights.items()}
    save_file(sums, folder / "adagrad.safetensors")


def test_sums_of_adagrad_go_up_on_request_and_stay_there(hub, folder):
    save_sums(folder)
    push(folder, NAME)
    assert "adagrad.safetensors" not in hub.files(NAME)
    assert prepare(folder, NAME).stays == ["adagrad.safetensors"]
    push(folder, NAME, with_optimizer=True)
    sent = (folder / "adagrad.safetensors").read_bytes()
    assert hub.files(NAME)["adagrad.safetensors"] == sent
    assert prepare(folder, NAME, with_optimizer=True).stays == []
    model = ElmoForPreTraining.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="5KB")
    push(folder, NAME)  # which removes the weights under other names
    assert hub.files(NAME)["adagrad.safetensors"] == sent
    assert "model.safetensors" not in hub.files(NAME)
    push(folder, NAME, with_optimizer=True)  # sums of sharded weights


def test_sums_of_a_checkpoint_that_is_uploaded_without_its_softmax(hub, folder):
    """They have the names of a model with one, as `elmo-hf convert --with-optimizer` writes them."""
    save_sums(folder)
    kept = {
        name: tensor
        for name, tensor in load_file(folder / "adagrad.safetensors").items()
        if "lm_head" not in name
    }
    save_file(kept, folder / "adagrad.safetensors")
    ElmoModel.from_pretrained(folder).save_pretrained(folder)
    assert "layers.0.bias" in load_file(folder / "model.safetensors")
    push(folder, NAME, with_optimizer=True)
    assert hub.files(NAME)["adagrad.safetensors"] == (folder / "adagrad.safetensors").read_bytes()


def test_sums_that_are_not_of_the_model(hub, folder):
    assert "has no adagrad.safetensors; leave out --with-optimizer." in refused(folder, with_optimizer=True)
    save_sums(folder, shape=(3, 3, 3))
    assert "adagrad.safetensors is not of this model: its 'elmo." in refused(folder, with_optimizer=True)
    (folder / "adagrad.safetensors").write_bytes(b"much")
    assert "adagrad.safetensors" in refused(folder, with_optimizer=True)
    (folder / "adagrad.safetensors").unlink()
    (folder / "adagrad.safetensors").symlink_to(folder / "model.safetensors")
    assert "adagrad.safetensors is a link" in refused(folder, with_optimizer=True)
    assert hub.requests == []


def test_letters_of_a_lexicon_go_up(hub, folder):
    content = json.dumps(letters_json(lexicons()[0]))
    (folder / "letters.json").write_text(content, encoding="utf-8")
    letters = ElmoTokenizer.from_pretrained(folder)
    assert "with boundary_characters [257, 258" in refused(folder)  # the model's, which reads bytes
    edit(folder / "config.json", boundary_characters=letters.boundary_characters)
    assert "letters.json" in prepare(folder, NAME).files


# ---- the command


def test_a_dry_run_sends_nothing(hub, folder):
    (folder / "optimizer.pt").write_bytes(b"x")
    result = CliRunner().invoke(app, ["push", str(folder), NAME, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert hub.requests == []
    lines = result.stdout.splitlines()
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines[:-2]}
    assert sorted(sizes) == sorted([*FILES, *RESULT_FILES])
    assert all(sizes[name] == (folder / name).stat().st_size for name in sizes if name != "README.md")
    assert lines[-2].split()[:2] == [f"{sum(sizes.values()):,}", "bytes"]
    assert lines[-1] == "Not uploaded: optimizer.pt."
    assert prepare(folder, NAME).sizes() == sizes


def test_the_command(hub, folder):
    result = CliRunner().invoke(app, ["push", str(folder), NAME, "--private", "--branch", "next"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Uploaded: {hub.url}/{NAME}/commit/{hub.repositories[NAME].branches['next']}\n"
    hub.commit(NAME, {"README.md": b"# Theirs\n"})
    result = CliRunner().invoke(app, ["push", str(folder), NAME])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"elmo-hf: {NAME} has another README.md")
    assert CliRunner().invoke(app, ["push", str(folder), NAME, "--overwrite-card"]).exit_code == 0
