"""A checkpoint to the Hugging Face Hub, whole or not at all: weights, config, tokenizer, code, card, results.

    elmo-hf push my-elmo/ someone/my-elmo --dry-run      # what would go, with sizes; nothing is sent
    push("my-elmo", "someone/my-elmo", private=True)

Everything is checked before anything is sent: the folder loads, it brings its code, and its card has no
hole. Then it goes up as one commit on top of the one that was looked at, so that a cut connection, or
somebody else's commit in between, leaves the repository as it was. HF_ENDPOINT names another Hub, HF_TOKEN
is the token.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import transformers
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from elmo_hf.errors import reason_of
from elmo_hf.hub.card import check_card, render_card
from elmo_hf.loading import FAULTS, tensor_shapes
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

# What `from_pretrained` reads besides weights and code, and what only people read.
READ = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"]
TOLD = ["options.json", "facts.yaml"]
WEIGHTS = (".safetensors", ".safetensors.index.json")
MESSAGE = "Upload ELMo with elmo_hf"


@dataclass(frozen=True)
class Upload:
    """What goes to the Hub, by its path there, as a file here or as bytes; and what of the folder stays."""

    files: dict[str, Path | bytes]
    stays: list[str]

    def sizes(self) -> dict[str, int]:
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    @property
    def card(self) -> bytes:
        content = self.files["README.md"]
        return content if isinstance(content, bytes) else content.read_bytes()


def push(
    folder: str | Path,
    repo: str,
    *,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    private: bool = False,
    branch: str | None = None,
    create_pr: bool = False,
    overwrite_card: bool = False,
    ask: Callable[[str], bool] | None = None,
    message: str = MESSAGE,
) -> str:
    """Uploads the checkpoint of a folder, and returns the address of the commit, or of the pull request.

    Args:
        repo: "ORG/NAME"; it is made if it is not there, and private if `private` is true.
        facts, results: of the card, where they are not in the folder as facts.yaml and results/.
        branch: where the commit goes; it is made from main if it is not there.
        create_pr: open a pull request, in place of a commit.
        overwrite_card: replace another README.md that is on the Hub; otherwise `ask` is asked, if given.
    """
    if create_pr and branch not in (None, "main"):
        raise ValueError(f"a pull request goes to main; leave out the branch {branch}, or the request.")
    upload = prepare(folder, repo, facts, results)
    if get_token() is None:
        raise ValueError("there are no credentials for the Hub; run `hf auth login`, or set HF_TOKEN.")
    api, place = HfApi(), Place(repo, branch or "main")
    with one_sentence(place):
        found = look_up(api, place)
        if found is None and create_pr:
            raise ValueError(f"there is no repository {repo} for a pull request; leave that out to make it.")
        if private and found is not None and not found.private:
            raise ValueError(f"{repo} is there and public; make it private in its settings, or name another.")
        check_remote_card(found, upload.card, place, overwrite_card, ask)
        if found is None:
            api.create_repo(repo, private=private)
            place.is_new = True
            found = look_up(api, place)
        assert found is not None
        if place.lacks_branch:
            api.create_branch(repo, branch=place.branch, exist_ok=True)
        commit = api.create_commit(
            repo,
            operations_for(upload, found),
            commit_message=message,
            revision=place.branch,
            create_pr=create_pr,
            parent_commit=found.sha,
        )
    return commit.pr_url or commit.commit_url


# ---- what would go


def prepare(
    folder: str | Path, repo: str, facts: str | Path | None = None, results: str | Path | None = None
) -> Upload:
    """All checks that need no Hub, and the files that go there."""
    folder = Path(folder)
    check_name(repo)
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no model: it has no config.json.")
    check_loads(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in READ if (folder / name).is_file()}
    weights = [path for path in sorted(folder.iterdir()) if path.name.endswith(WEIGHTS)]
    files |= {path.name: path for path in [*weights, *code_of(folder)]}
    files |= {name: folder / name for name in TOLD if (folder / name).is_file()}
    if facts is not None:
        files["facts.yaml"] = Path(facts)
    of_results = Path(results) if results is not None else folder / "results"
    kept = (".json", ".md", ".png")  # what was measured, and what the card shows of it
    files |= {f"results/{path.name}": path for path in sorted(of_results.glob("*")) if path.suffix in kept}
    files["README.md"] = card_of(folder, repo, facts, results).encode("utf-8")
    every = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return Upload(files, [name for name in every if name not in files and "__pycache__" not in name])


def check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo} is no name on the Hub: {reason_of(error)}.") from None
    if repo.count("/") != 1:
        raise ValueError(f"name the repository as ORG/NAME, not {repo}.")


def card_of(folder: Path, repo: str, facts: str | Path | None, results: str | Path | None) -> str:
    """Rendered from the facts; where there are none, the folder's README.md."""
    own = folder / "README.md"
    if facts is None and not (folder / "facts.yaml").is_file():
        if not own.is_file():
            raise ValueError(f"{folder} has no card: write facts.yaml for `elmo-hf card`, or a README.md.")
        text = own.read_text(encoding="utf-8")
        check_card(text, str(folder))
        return text
    card = render_card(folder, facts, results, repo)
    if own.is_file() and own.read_text(encoding="utf-8") not in (card, render_card(folder, facts, results)):
        raise ValueError(f"{own} is not what its facts and results give; run `elmo-hf card`, or remove it.")
    return card


def check_loads(folder: Path) -> None:
    """The model and its tokenizer, as others will load them."""
    try:
        model, found = auto_class(folder).from_pretrained(folder, output_loading_info=True)
        tokenizer = ElmoTokenizer.from_pretrained(folder)
    except FAULTS as error:
        raise ValueError(f"{folder} does not load: {reason_of(error)}.") from None
    wrong = sorted([*found["missing_keys"], *found["unexpected_keys"], *map(str, found["mismatched_keys"])])
    if wrong:
        raise ValueError(f"{folder} does not load: its weights do not fit its config, as {wrong[0]}.")
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise ValueError(f"{folder} has weights that are no numbers, as {name}; nobody could use it.")
    words, config = tokenizer.vocab_size, model.config
    if words != config.vocab_size and (hasattr(model, "lm_head") or config.token_encoder == "words"):
        raise ValueError(f"{folder} has a model of {config.vocab_size} words, and a tokenizer of {words}.")


def auto_map(folder: Path, name: str) -> dict[str, list[str]]:
    """Which classes load what, as a config or a tokenizer_config says: {"AutoModel": ["file.Class"]}."""
    path = folder / name
    found = json.loads(path.read_text(encoding="utf-8")).get("auto_map") if path.is_file() else None
    return {
        key: [one for one in (value if isinstance(value, list) else [value]) if one]
        for key, value in (found or {}).items()
    }


def auto_class(folder: Path) -> Any:
    """The Auto class that loads the folder's model with its head."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own, classes = (config.get("architectures") or ["its model"])[0], auto_map(folder, "config.json")
    for name, references in classes.items():
        if any(one.split(".")[-1] == own for one in references) and hasattr(transformers, name):
            return getattr(transformers, name)
    raise ValueError(f"config.json names no Auto class for {own} in its auto_map; use save_pretrained.")


def code_of(folder: Path) -> list[Path]:
    """The Python files that the config and the tokenizer name, and those that they import."""
    needed = [("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")]
    if any(name.startswith("elmo.") for path in folder.glob("*.safetensors") for name in tensor_shapes(path)):
        needed.append(("config.json", "AutoModel"))  # a head without ELMo has none
    for name, key in needed:
        if key not in auto_map(folder, name):
            raise ValueError(f"{folder / name} has no {key} in its auto_map; save it with save_pretrained.")
    maps = [auto_map(folder, name) for name in ("config.json", "tokenizer_config.json")]
    references = [one for classes in maps for many in classes.values() for one in many]
    waiting, found = sorted({reference.split(".")[0] for reference in references}), {}
    while waiting:
        name = waiting.pop()
        path = folder / f"{name}.py"
        if not path.is_file():
            raise ValueError(
                f"{folder} lacks {name}.py, which its model needs; save it with save_pretrained."
            )
        found[name] = path
        waiting += [other for other in relatives(path) if other not in found]
    return [found[name] for name in sorted(found)]


def relatives(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return [node.module for node in nodes if node.module]


# ---- on the Hub


@dataclass
class Place:
    """Where a push goes, and what was found there."""

    repo: str
    branch: str
    lacks_branch: bool = False
    is_new: bool = False  # made by this push


def look_up(api: HfApi, place: Place) -> Any:
    """What the Hub tells of the branch, or of main where that is not there yet; None without a repository."""
    place.lacks_branch = False
    try:
        return api.model_info(place.repo, revision=place.branch, files_metadata=True)
    except RevisionNotFoundError:
        place.lacks_branch = True
        return api.model_info(place.repo, revision="main", files_metadata=True)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        return None


def check_remote_card(
    found: Any, card: bytes, place: Place, overwrite: bool, ask: Callable[[str], bool] | None
) -> None:
    """Somebody may have written the card that is there by hand."""
    theirs = [file.blob_id for file in found.siblings or [] if file.rfilename == "README.md"] if found else []
    if not theirs or theirs[0] == git_blob(card) or overwrite:
        return
    if ask is None or not ask(f"{place.repo} has another README.md; overwrite it?"):
        raise ValueError(f"{place.repo} has another README.md, which is kept; --overwrite-card replaces it.")


def git_blob(content: bytes) -> str:
    """The name that git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def operations_for(upload: Upload, found: Any) -> list[CommitOperationAdd | CommitOperationDelete]:
    """The files; and weights that lie there under other names go, or they might be loaded in their place."""
    additions = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
        for name, content in upload.files.items()
    ]
    there = [file.rfilename for file in found.siblings or []]
    old = [name for name in there if name.endswith(WEIGHTS) and "/" not in name and name not in upload.files]
    return [*additions, *(CommitOperationDelete(path_in_repo=name) for name in old)]


@contextmanager
def one_sentence(place: Place) -> Iterator[None]:
    """What the library raises over several lines, as what happened and what to do."""
    try:
        yield
    except ValueError as error:  # ours have one line; the library's, about a card or an upload, have several
        raise ValueError(" ".join(str(error).split()).rstrip(".") + ".") from None
    except (HTTPError, ConnectionError, RuntimeError) as error:
        cause = error.__cause__ or error if isinstance(error, RuntimeError) else error  # of a broken upload
        made = f" The repository {place.repo} was made for it." if place.is_new else ""
        raise ValueError(explain(cause, place) + made) from error


def explain(error: BaseException, place: Place) -> str:
    if not isinstance(error, HfHubHTTPError):
        what = "connection" if isinstance(error, HTTPError | ConnectionError) else "upload"
        return (
            f"the {what} to {constants.ENDPOINT} failed ({reason_of(error)}); a commit is made whole or "
            f"not at all, so look at {place.repo}, and try again."
        )
    status = error.response.status_code
    if status == 401:
        return "the Hub does not accept your token; run `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return f"your token has no right to write to {place.repo}; nothing was uploaded."
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no repository {place.repo} that your token can see; check the name and its rights."
    if status in (409, 412):
        return (
            f"{place.repo} was changed in the meantime, and nothing was uploaded; look at it, and try again."
        )
    reason = cast(Any, error).server_message or error.response.reason_phrase
    return f"the Hub answered {status} ({reason_of(ValueError(reason))}); {place.repo} is as it was."
