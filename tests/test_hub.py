"""Uploading to a Hub on this machine: what is sent, what is refused, what is left after a fault; and loading
from there by name, with the package and without it, and without the Hub."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hub_server import Hub, Repository
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
from test_hub_cards import FACTS, RESULTS, RUN, WORDS, write
from typer.testing import CliRunner

import elmo_hf.hub
from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoModel, ElmoTokenizer
from elmo_hf.cli import app
from elmo_hf.hub import prepare, push
from elmo_hf.hub_facts import describe_model

# huggingface_hub sends a file by an option of its HTTP library that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "someone/elmo-test"
CODE = ["checks_elmo.py", "configuration_elmo.py", "layers_elmo.py", "modeling_elmo.py"]
CODE += ["modeling_elmo_pretraining.py", "tokenization_elmo.py", "words_elmo.py"]
FILES = [
    "README.md",
    *CODE,
    "config.json",
    "facts.yaml",
    "model.safetensors",
    "tokenizer_config.json",
    "vocab.txt",
]
RESULT_FILES = [f"results/{name}.json" for name in [*RESULTS, "run"]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint with its facts and results."""
    folder = tmp_path_factory.mktemp("saved") / "elmo"
    vocabulary = folder.with_name("words.txt")
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    config = ElmoConfig(lstm_dim=16, projection_dim=8, vocab_size=len(WORDS), char_filters=[[1, 4], [2, 8]])
    ElmoForPreTraining(config).save_pretrained(folder)
    ElmoTokenizer(vocabulary).save_pretrained(folder)
    return write(folder, FACTS, RESULTS | {"run": RUN | {"model": describe_model(folder)}})


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "elmo"))


@pytest.fixture
def hub(monkeypatch):
    with Hub({"secret": {"someone"}, "guest": {"guest"}}) as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        monkeypatch.setenv("HF_TOKEN", "secret")
        disable_progress_bars()
        yield found
        enable_progress_bars()


def refused(folder, repo=NAME, **options):
    """The one sentence of the refusal."""
    with pytest.raises(ValueError, match=r"\.$") as error:
        push(folder, repo, **options)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def edit(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


# ---- what is sent


def test_everything_goes_up_in_one_commit(hub, folder):
    (folder / "training").mkdir()
    (folder / "training" / "optimizer.safetensors").write_bytes(b"much")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    address = push(folder, NAME)
    files = hub.files(NAME)
    assert sorted(files) == sorted([".gitattributes", *FILES, *RESULT_FILES])
    assert len(hub.repositories[NAME].commits) == 2
    assert address == f"{hub.url}/{NAME}/commit/{hub.repositories[NAME].branches['main']}"
    assert not hub.repositories[NAME].private
    for name in set(files) - {".gitattributes", "README.md"}:
        assert files[name] == (folder / name).read_bytes()
    card = files["README.md"].decode("utf-8")
    assert f'AutoModel.from_pretrained("{NAME}", trust_remote_code=True)' in card
    assert "valid.books" in card


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


def test_a_branch_begins_at_main(hub, folder):
    push(folder, NAME)
    main = hub.repositories[NAME].branches["main"]
    ElmoModel.from_pretrained(folder).save_pretrained(folder)
    push(folder, NAME, branch="vectors/only", overwrite_card=True)
    assert hub.repositories[NAME].branches["main"] == main
    assert hub.files(NAME, "vectors/only")["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert hub.files(NAME, "main")["model.safetensors"] != (folder / "model.safetensors").read_bytes()
    push(folder, NAME, branch="vectors/only")  # which is there now


def test_a_pull_request_of_somebody_without_rights(hub, folder, monkeypatch):
    push(folder, NAME)
    main = hub.repositories[NAME].branches["main"]
    monkeypatch.setenv("HF_TOKEN", "guest")
    edit(folder / "results" / "shapes.json", hours_each=7)
    assert "has another README.md" in refused(folder, create_pr=True)
    assert push(folder, NAME, create_pr=True, overwrite_card=True) == f"{hub.url}/{NAME}/discussions/1"
    assert hub.repositories[NAME].branches["main"] == main
    assert b'"hours_each": 7' in hub.files(NAME, "refs/pr/1")["results/shapes.json"]
    assert "there is no repository guest/new for a pull request" in refused(
        folder, "guest/new", create_pr=True
    )
    assert "leave out the branch other" in refused(folder, branch="other", create_pr=True)


def test_weights_under_other_names_are_removed(hub, folder):
    """Were model.safetensors left beside shards, it would be loaded, and not they."""
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


def test_a_card_elsewhere_and_a_card_without_facts(hub, folder, tmp_path):
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


# ---- the card that is there


def test_another_card_is_kept(hub, folder):
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


# ---- what is refused before anything is sent


def spoil_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


def spoil_config(folder):
    edit(folder / "config.json", lstm_dim=32)


def without(name, key):
    """A config that names the code for everything but that."""

    def spoil(folder):
        found = json.loads((folder / name).read_text(encoding="utf-8"))["auto_map"]
        edit(folder / name, auto_map={other: value for other, value in found.items() if other != key})

    return spoil


def spoil_head(folder):
    edit(folder / "config.json", architectures=["ElmoForPoetry"])


def spoil_numbers(folder):
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.constant_(next(iter(model.elmo.layers.parameters())), float("nan"))
    model.save_pretrained(folder)


def spoil_head_weights(folder):
    """A language model's config, and weights without the softmax."""
    config = (folder / "config.json").read_bytes()
    ElmoModel.from_pretrained(folder).save_pretrained(folder)
    (folder / "config.json").write_bytes(config)


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weights, "does not load: "),
        (spoil_config, "does not load: "),
        (without("config.json", "AutoModel"), "config.json has no AutoModel in its auto_map; save it with"),
        (without("config.json", "AutoConfig"), "config.json has no AutoConfig in its auto_map; save it with"),
        (without("tokenizer_config.json", "AutoTokenizer"), "has no AutoTokenizer in its auto_map; save it"),
        (spoil_head, "names no Auto class for ElmoForPoetry in its auto_map"),
        (spoil_head_weights, "does not load: its weights do not fit its config, as lm_head."),
        (spoil_numbers, "has weights that are no numbers, as elmo.layers.0."),
        (remove("config.json"), "holds no model: it has no config.json"),
        (remove("model.safetensors"), "does not load: "),
        (remove("vocab.txt"), "has a model of 9 words, and a tokenizer of 3"),
        (remove("tokenizer_config.json"), "tokenizer_config.json has no AutoTokenizer"),
        (remove("words_elmo.py"), "lacks words_elmo.py, which its model needs"),
        (remove("modeling_elmo.py"), "lacks modeling_elmo.py, which its model needs"),
        (remove("facts.yaml"), "has no card: write facts.yaml"),
        (remove("results/perplexity.json"), "the card lacks results/perplexity.json"),
        (lambda f: (f / "README.md").write_text("# Old"), "README.md is not what its facts and results give"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refused_before_anything_is_sent(hub, folder, spoil, message):
    spoil(folder)
    assert message in refused(folder)
    assert hub.requests == []


@pytest.mark.parametrize(
    "text", ["# No metadata\n", "---\nlicense: mit\n---\n[More Information Needed]\n", "---\na: [\n---\n"]
)
def test_a_card_of_ones_own_with_holes(hub, folder, text):
    (folder / "facts.yaml").unlink()
    (folder / "README.md").write_text(text, encoding="utf-8")
    assert "the card of" in refused(folder)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["elmo", "a/b/c", "some one/elmo", "someone/--elmo", ""])
def test_names_that_are_none(hub, folder, name):
    sentence = refused(folder, name)
    assert "is no name on the Hub" in sentence or "as ORG/NAME" in sentence
    assert hub.requests == []


def test_no_credentials(hub, folder, monkeypatch):
    monkeypatch.setattr(elmo_hf.hub, "get_token", lambda: None)
    assert refused(folder) == "there are no credentials for the Hub; run `hf auth login`, or set HF_TOKEN."
    assert hub.requests == []


# ---- what goes wrong on the way


def test_a_token_that_nobody_knows(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "guessed")
    assert "does not accept your token" in refused(folder)
    assert hub.repositories == {}


def test_no_rights(hub, folder, monkeypatch):
    push(folder, NAME)
    monkeypatch.setenv("HF_TOKEN", "guest")
    before = len(hub.repositories[NAME].commits)
    edit(folder / "results" / "shapes.json", hours_each=7)
    sentence = refused(folder, overwrite_card=True)
    assert sentence == f"your token has no right to write to {NAME}; nothing was uploaded."
    assert len(hub.repositories[NAME].commits) == before
    assert "no right to write to elsewhere/elmo" in refused(folder, "elsewhere/elmo")
    assert list(hub.repositories) == [NAME]


def test_a_private_repository_of_somebody_else(hub, folder, monkeypatch):
    """To us there is none of that name, and none can be made there."""
    push(folder, NAME, private=True)
    monkeypatch.setenv("HF_TOKEN", "guest")
    assert "no right to write to" in refused(folder)


def test_a_connection_that_is_cut_once_is_taken_up_again(hub, folder):
    hub.cut_uploads = 1
    push(folder, NAME)
    assert hub.files(NAME)["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_a_connection_that_stays_cut(hub, folder):
    hub.cut_uploads = 1000
    sentence = refused(folder)
    assert sentence.startswith(f"the connection to {hub.url} failed (")
    assert sentence.endswith(f" The repository {NAME} was made for it.")
    assert list(hub.files(NAME)) == [".gitattributes"]
    assert hub.stored == {}
    hub.cut_uploads = 0
    push(folder, NAME)
    before = dict(hub.files(NAME))
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.ones_(next(model.parameters()))
    model.save_pretrained(folder)
    hub.cut_uploads = 1000
    sentence = refused(folder)
    assert sentence.endswith(f"so look at {NAME}, and try again.")
    assert hub.files(NAME) == before


def test_no_hub_at_all(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refused(folder).startswith("the connection to http://127.0.0.1:9 failed (")


def test_an_upload_that_fails_in_some_other_way(hub, folder, monkeypatch):
    """As the newer storage's own library tells it."""
    push(folder, NAME)
    edit(folder / "results" / "shapes.json", hours_each=7)

    def fail(*_, **__):
        raise RuntimeError("no room\nfor this")

    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", fail)
    sentence = refused(folder, overwrite_card=True)
    assert sentence.startswith(
        f"the upload to {hub.url} failed (no room); a commit is made whole or not at all"
    )


def test_somebody_elses_commit_in_between(hub, folder):
    push(folder, NAME)
    edit(folder / "results" / "shapes.json", hours_each=7)
    hub.before_commit = lambda: hub.commit(NAME, {"theirs.txt": b"1"})
    sentence = refused(folder, overwrite_card=True)
    assert (
        sentence
        == f"{NAME} was changed in the meantime, and nothing was uploaded; look at it, and try again."
    )
    assert hub.files(NAME)["theirs.txt"] == b"1"
    assert b"7" not in hub.files(NAME)["results/shapes.json"][:60]


@pytest.mark.parametrize(
    "part", ["/preupload/", "/commit/", "objects/batch", "/lfs/", "/revision/", "/repos/create"]
)
def test_a_hub_that_is_out_of_order(hub, folder, part):
    hub.broken = {part: 500}
    sentence = refused(folder)
    assert "the Hub answered 500 (something broke" in sentence
    assert NAME not in hub.repositories or list(hub.files(NAME)) == [".gitattributes"]


def test_metadata_that_the_hub_refuses(hub, folder):
    write(folder, FACTS | {"licence": "no-such"}, {})
    assert refused(folder) == 'Invalid metadata in README.md. - "license" must be known.'
    assert list(hub.files(NAME)) == [".gitattributes"]


# ---- the command


def test_a_dry_run_sends_nothing(hub, folder):
    (folder / "optimizer.pt").write_bytes(b"x")
    found = CliRunner().invoke(app, ["push", str(folder), NAME, "--dry-run"])
    assert found.exit_code == 0, found.output
    assert hub.requests == []
    lines = found.stdout.splitlines()
    sizes = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines[:-2]}
    assert sorted(sizes) == sorted([*FILES, *RESULT_FILES])
    assert all(sizes[name] == (folder / name).stat().st_size for name in sizes if name != "README.md")
    assert lines[-2].split()[:2] == [f"{sum(sizes.values()):,}", "bytes"]
    assert lines[-1] == "These stay here: optimizer.pt."
    assert prepare(folder, NAME).sizes() == sizes


def test_the_command(hub, folder):
    found = CliRunner().invoke(app, ["push", str(folder), NAME, "--private", "--branch", "next"])
    assert found.exit_code == 0, found.output
    assert found.stdout == f"Uploaded: {hub.url}/{NAME}/commit/{hub.repositories[NAME].branches['next']}\n"
    hub.commit(NAME, {"README.md": b"# Theirs\n"})
    found = CliRunner().invoke(app, ["push", str(folder), NAME])
    assert found.exit_code == 1
    assert found.stderr.startswith(f"elmo-hf: {NAME} has another README.md")
    assert CliRunner().invoke(app, ["push", str(folder), NAME, "--overwrite-card"]).exit_code == 0


# ---- in processes of their own, from one to another

LOAD = """
    import json, sys
    if sys.argv[2] == "without":
        sys.modules["elmo_hf"] = None  # importing it fails, as where it is not installed
        options = {"trust_remote_code": True}
    else:
        import elmo_hf
        options = {}
    from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, pipeline
    from transformers.utils import logging
    logging.disable_progress_bar()
    name, text = sys.argv[1], "He sat on the bank ."
    options |= {"revision": sys.argv[3]} if len(sys.argv) > 3 else {}
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    model = AutoModel.from_pretrained(name, **options).eval()
    language_model = AutoModelForPreTraining.from_pretrained(name, **options).eval()
    extractor = pipeline("feature-extraction", model=name, **options)
    batch = tokenizer(text, return_tensors="pt")
    print(json.dumps({
        "vectors": model(**batch).last_hidden_state[0].tolist(),
        "loss": language_model(**batch).loss.item(),
        "features": extractor(text)[0],
        "code": type(model).__module__.split(".")[0],
    }))
"""
PUSH_CLASSES = """
    import sys
    import elmo_hf
    model = elmo_hf.ElmoForPreTraining.from_pretrained(sys.argv[1])
    model.push_to_hub(sys.argv[2])
    elmo_hf.ElmoTokenizer.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
"""
PUSH = "from elmo_hf.cli import app; app()"
# Imports the library once, which takes seconds, and then runs each code in a process of its own.
NURSERY = """
    import json, os, sys, traceback
    from transformers import AutoModel, AutoModelForPreTraining, AutoTokenizer, pipeline
    for line in sys.stdin:
        command = json.loads(line)
        if os.fork() == 0:
            written = os.open(command["output"], os.O_WRONLY | os.O_CREAT)
            os.dup2(written, 1), os.dup2(written, 2)
            sys.argv, code = ["child", *command["arguments"]], 0
            try:
                exec(command["code"], {"__name__": "__main__"})
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class Nursery:
    """Of processes that know a Hub by HF_ENDPOINT, or, offline, only the cache."""

    def __init__(self, hub, cache, **environment):
        self.output, self.count = cache, 0
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(NURSERY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "secret"}
            | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
            | environment,
        )

    def run(self, code, *arguments, ends_with="0"):
        """What a new process prints."""
        self.count += 1
        output = self.output / f"{self.process.pid}-{self.count}.txt"
        command = {"code": textwrap.dedent(code), "output": str(output), "arguments": [*map(str, arguments)]}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        ended = self.process.stdout.readline().strip()
        printed = output.read_text(encoding="utf-8")
        assert ended == ends_with, printed
        return printed.splitlines()

    def close(self):
        self.process.kill()  # all that it started has ended
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def one_hub():
    with Hub({"secret": {"someone"}}) as found:
        yield found


@pytest.fixture(scope="module")
def nurseries(one_hub, tmp_path_factory):
    """One with the Hub and one without, on one cache."""
    cache = tmp_path_factory.mktemp("cache")
    found = [Nursery(one_hub, cache), Nursery(one_hub, cache, HF_HUB_OFFLINE="1")]
    yield found
    for one in found:
        one.close()


def check(printed, folder, code):
    found = json.loads(printed[-1])
    batch = ElmoTokenizer.from_pretrained(folder)("He sat on the bank .", return_tensors="pt")
    with torch.no_grad():
        vectors = ElmoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[0]
        loss = ElmoForPreTraining.from_pretrained(folder).eval()(**batch).loss.item()
    torch.testing.assert_close(torch.tensor(found["vectors"]), vectors)
    torch.testing.assert_close(torch.tensor(found["features"]), vectors)
    assert found["loss"] == pytest.approx(loss)
    assert found["code"] == code


@pytest.mark.parametrize(("package", "code"), [("with", "elmo_hf"), ("without", "transformers_modules")])
def test_from_one_process_to_another_by_name(one_hub, nurseries, folder, package, code):
    """And then once more without the Hub, from the cache."""
    (online, offline), name = nurseries, f"someone/elmo-{package}"
    assert online.run(PUSH, "push", folder, name, "--private")[-1].startswith("Uploaded: ")
    assert one_hub.repositories[name].private
    one_hub.cut_downloads = 1  # a download that breaks off goes on
    check(online.run(LOAD, name, package), folder, code)
    assert one_hub.cut_downloads == 0
    asked = len(one_hub.requests)
    check(offline.run(LOAD, name, package), folder, code)
    assert len(one_hub.requests) == asked


def test_push_to_hub_of_the_classes(one_hub, nurseries, folder):
    """The library's own way: two commits, and a card with holes, but it loads."""
    online, name = nurseries[0], "someone/elmo-classes"
    online.run(PUSH_CLASSES, folder, name)
    assert set(CODE) < set(one_hub.files(name))
    check(online.run(LOAD, name, "without"), folder, "transformers_modules")


def test_a_revision_and_what_became_of_it(one_hub, nurseries, folder, tmp_path):
    """Who names a revision keeps its weights; who names none gets the newest, and then offline as well."""
    (online, offline), name = nurseries, "someone/elmo-revised"
    first = Path(shutil.copytree(folder, tmp_path / "first"))
    online.run(PUSH, "push", first, name)
    revision = one_hub.repositories[name].branches["main"]
    check(online.run(LOAD, name, "with"), first, "elmo_hf")
    model = ElmoForPreTraining.from_pretrained(folder)
    torch.nn.init.normal_(next(model.elmo.layers.parameters()))
    model.save_pretrained(folder)
    online.run(PUSH, "push", folder, name, "--overwrite-card")
    check(online.run(LOAD, name, "with"), folder, "elmo_hf")
    check(offline.run(LOAD, name, "with"), folder, "elmo_hf")
    check(offline.run(LOAD, name, "with", revision), first, "elmo_hf")


def test_what_is_not_there_by_name(one_hub, nurseries):
    """A repository, and one that has files but no model."""
    one_hub.repositories["someone/empty"] = Repository(private=False)
    for nursery in nurseries:
        for name in ("someone/nothing", "someone/empty"):
            printed = nursery.run(PUSH, "vectors", "hello", "--model", name, ends_with="1")
            assert len(printed) == 1
            assert printed[0].startswith(f"elmo-hf: no ELMo can be loaded from {name}: ")
