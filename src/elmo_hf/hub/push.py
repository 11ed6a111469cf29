"""Upload a checkpoint to the Hugging Face Hub: weights, config, tokenizer, code, card and results.

    elmo-hf push my-elmo/ someone/my-elmo --dry-run      # list the files and their sizes; send nothing
    push("my-elmo", "someone/my-elmo", private=True)

Everything is checked before anything is sent: the folder loads, it brings its code, and its card is complete.
Then it goes up as one commit, whose parent is the commit that was looked at: a cut connection, or somebody
else's commit in between, leaves the repository as it was. HF_ENDPOINT names
another Hub, HF_TOKEN has the token.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import transformers
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash
from transformers.dynamic_module_utils import get_relative_imports

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.hub.card import check_card, render_card
from elmo_hf.hub.reading import read_text
from elmo_hf.loading import FAULTS, tensor_shapes
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

# What is uploaded besides weights, code, card and results.
FILES = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"]
FILES += ["options.json", "facts.yaml"]
WEIGHTS = (".safetensors", ".safetensors.index.json")
RESULTS = (".json", ".md", ".png")
MESSAGE = "Upload ELMo with elmo_hf"


@dataclass(frozen=True)
class Upload:
    """What goes to the Hub, by path, as a file or as bytes; and the files of the folder that do not."""

    files: dict[str, Path | bytes]
    stays: list[str]

    def sizes(self) -> dict[str, int]:
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


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
    """Upload the checkpoint of a folder as one commit, or not at all.

    Args:
        folder: the checkpoint's folder.
        repo: "ORG/NAME"; the repository is made if it is not there.
        facts: of the card; `facts.yaml` in the folder by default.
        results: of the card; the folder `results` in the folder by default.
        private: make the repository private; one that is there must be private already.
        branch: where the commit goes, `main` by default; it is made from main if it is not there.
        create_pr: open a pull request in place of a commit.
        overwrite_card: replace a README.md on the Hub that is not the card.
        ask: asked whether to replace such a README.md; without it, that is refused.
        message: of the commit.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ElmoError: the folder is not complete, or the Hub refused something.
    """
    if create_pr and branch not in (None, "main"):
        raise ElmoError(f"a pull request goes to main; leave out the branch {branch}, or the request.")
    upload = prepare(folder, repo, facts, results)
    if get_token() is None:
        raise ElmoError("there are no credentials for the Hub; run `hf auth login`, or set HF_TOKEN.")
    api, branch = HfApi(), branch or "main"
    with one_sentence(repo):
        info, has_branch = look_up(api, repo, branch)
        is_new = info is None
        if is_new and create_pr:
            raise ElmoError(f"there is no repository {repo} for a pull request; leave that out to make it.")
        if info is not None:
            check_remote(info, upload, repo, private, overwrite_card, ask)
        else:
            api.create_repo(repo, private=private)
    with one_sentence(repo, f" The repository {repo} was made for it." if is_new else ""):
        if info is None:
            info, has_branch = look_up(api, repo, branch)
        if not has_branch:
            api.create_branch(repo, branch=branch, exist_ok=True)
        commit = api.create_commit(
            repo,
            operations_for(upload, info),
            commit_message=message,
            revision=branch,
            create_pr=create_pr,
            parent_commit=info.sha if info is not None else None,
        )
    return commit.pr_url or commit.commit_url


# ---- what is uploaded


def prepare(
    folder: str | Path, repo: str, facts: str | Path | None = None, results: str | Path | None = None
) -> Upload:
    """The files to upload, after all checks that need no Hub."""
    folder = Path(folder)
    check_name(repo)
    if not (folder / "config.json").is_file():
        raise ElmoError(f"{folder} holds no model: it has no config.json.")
    check_loads(folder)
    files: dict[str, Path | bytes] = {name: folder / name for name in FILES if (folder / name).is_file()}
    weights = [path for path in sorted(folder.iterdir()) if path.name.endswith(WEIGHTS)]
    files |= {path.name: path for path in [*weights, *code_of(folder)]}
    if facts is not None:
        files["facts.yaml"] = Path(facts)
    shown = Path(results) if results is not None else folder / "results"
    files |= {
        f"results/{path.name}": path
        for path in sorted(shown.glob("*"))
        if path.suffix in RESULTS and path.is_file()
    }
    files["README.md"] = card_of(folder, repo, facts, results).encode("utf-8")
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return Upload(files, [name for name in names if name not in files and "__pycache__" not in name])


def check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ElmoError(f"{repo} is no name on the Hub: {reason_of(error)}.") from None
    if repo.count("/") != 1:
        raise ElmoError(f"name the repository as ORG/NAME, not {repo}.")


def card_of(folder: Path, repo: str, facts: str | Path | None, results: str | Path | None) -> str:
    """The card of the facts; without facts, the folder's README.md."""
    path = folder / "README.md"
    readme = read_text(path) if path.exists() else None
    if facts is None and not (folder / "facts.yaml").is_file():
        if readme is None:
            raise ElmoError(f"{folder} has no card: write facts.yaml for `elmo-hf card`, or a README.md.")
        check_card(readme, str(folder))
        return readme
    card = render_card(folder, facts, results, repo)
    if readme is not None and readme not in (card, render_card(folder, facts, results)):
        raise ElmoError(f"{path} is not what its facts and results give; run `elmo-hf card`, or remove it.")
    return card


def check_loads(folder: Path) -> None:
    """The model and its tokenizer load as `from_pretrained` will load them."""
    try:
        model, report = auto_class(folder).from_pretrained(folder, output_loading_info=True)
        tokenizer = ElmoTokenizer.from_pretrained(folder)
    except FAULTS as error:
        raise ElmoError(f"{folder} does not load: {reason_of(error)}.") from None
    problems = sorted(
        str(key) for name in ("missing", "unexpected", "mismatched") for key in report[f"{name}_keys"]
    )
    if problems:
        raise ElmoError(f"{folder} does not load: its weights do not fit its config, as {problems[0]}.")
    for name, weight in model.state_dict().items():
        if not weight.isfinite().all():
            raise ElmoError(f"{folder} has weights that are no numbers, as {name}; nobody could use it.")
    words, config = tokenizer.vocab_size, model.config
    if words != config.vocab_size and (hasattr(model, "lm_head") or config.token_encoder == "words"):
        raise ElmoError(f"{folder} has a model of {config.vocab_size} words, and a tokenizer of {words}.")


def auto_map(path: Path) -> dict[str, list[str]]:
    """The classes that a config or a tokenizer's config names: {"AutoModel": ["file.Class"]}."""
    classes = json.loads(path.read_text(encoding="utf-8")).get("auto_map") if path.is_file() else None
    return {
        name: [reference for reference in (value if isinstance(value, list) else [value]) if reference]
        for name, value in (classes or {}).items()
    }


def auto_class(folder: Path) -> Any:
    """The Auto class that loads the folder's model with its head."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or ["its model"])[0]
    for name, references in auto_map(folder / "config.json").items():
        names = [reference.split(".")[-1] for reference in references]
        if architecture in names and hasattr(transformers, name):
            return getattr(transformers, name)
    raise ElmoError(
        f"config.json names no Auto class for {architecture} in its auto_map; use save_pretrained."
    )


def code_of(folder: Path) -> list[Path]:
    """The Python files that the config and the tokenizer name, and those that they import."""
    needed = [("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")]
    if any(name.startswith("elmo.") for path in folder.glob("*.safetensors") for name in tensor_shapes(path)):
        needed.append(("config.json", "AutoModel"))  # a head without ELMo has none
    for name, key in needed:
        if key not in auto_map(folder / name):
            raise ElmoError(f"{folder / name} has no {key} in its auto_map; save it with save_pretrained.")
    maps = [auto_map(folder / name) for name in ("config.json", "tokenizer_config.json")]
    references = [reference for classes in maps for entry in classes.values() for reference in entry]
    waiting, files = sorted({reference.split(".")[0] for reference in references}), dict[str, Path]()
    while waiting:
        name = waiting.pop()
        files[name] = path = folder / f"{name}.py"
        if not path.is_file():
            raise ElmoError(
                f"{folder} lacks {path.name}, which its model needs; save it with save_pretrained."
            )
        waiting += [module for module in get_relative_imports(path) if module not in files]
    return [files[name] for name in sorted(files)]


# ---- on the Hub


def look_up(api: HfApi, repo: str, branch: str) -> tuple[ModelInfo | None, bool]:
    """What is on a branch, or on main where that branch is not there; and whether it is there."""
    try:
        return api.model_info(repo, revision=branch, files_metadata=True), True
    except RevisionNotFoundError:
        return api.model_info(repo, revision="main", files_metadata=True), False
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        return None, True


def check_remote(
    info: ModelInfo,
    upload: Upload,
    repo: str,
    private: bool,
    overwrite_card: bool,
    ask: Callable[[str], bool] | None,
) -> None:
    """Nothing private becomes public, and no README.md is replaced that somebody may have written by hand."""
    if private and not info.private:
        raise ElmoError(f"{repo} is there and public; make it private in its settings, or name another.")
    readmes = [file.blob_id for file in info.siblings or [] if file.rfilename == "README.md"]
    if not readmes or readmes[0] == git_hash(cast(bytes, upload.files["README.md"])) or overwrite_card:
        return
    if ask is None or not ask(f"{repo} has another README.md; overwrite it?"):
        raise ElmoError(f"{repo} has another README.md, which is kept; --overwrite-card replaces it.")


def operations_for(
    upload: Upload, info: ModelInfo | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """The files; and the removal of weights under other names, which might be loaded in place of these."""
    remote = [file.rfilename for file in (info.siblings if info is not None else None) or []]
    old = [name for name in remote if name.endswith(WEIGHTS) and "/" not in name and name not in upload.files]
    return [
        *(CommitOperationAdd(name, content) for name, content in upload.files.items()),
        *(CommitOperationDelete(name) for name in old),
    ]


@contextmanager
def one_sentence(repo: str, addition: str = "") -> Iterator[None]:
    """The library's errors, of several lines, as one sentence of what happened and what to do."""
    try:
        yield
    except ValueError as error:  # ours have one line; the library's, about a card or an upload, have several
        raise ElmoError(" ".join(str(error).split()).rstrip(".") + ".") from None
    except (HTTPError, ConnectionError, RuntimeError) as error:
        cause = error.__cause__ or error if isinstance(error, RuntimeError) else error  # of a broken upload
        raise ElmoError(explain(cause, repo) + addition) from error


def explain(error: BaseException, repo: str) -> str:
    if not isinstance(error, HfHubHTTPError):
        what = "connection" if isinstance(error, HTTPError | ConnectionError) else "upload"
        return (
            f"the {what} to {constants.ENDPOINT} failed ({reason_of(error)}); a commit is made whole or "
            f"not at all, so look at {repo}, and try again."
        )
    status = error.response.status_code
    if status == 401:
        return "the Hub does not accept your token; run `hf auth login`, or set HF_TOKEN."
    if status == 403:
        return f"your token has no right to write to {repo}; nothing was uploaded."
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no repository {repo} that your token can see; check the name and its rights."
    if status in (409, 412):
        return f"{repo} was changed in the meantime, and nothing was uploaded; look at it, and try again."
    reason = cast(Any, error).server_message or error.response.reason_phrase
    return f"the Hub answered {status} ({reason_of(ValueError(reason))}); {repo} is as it was."
