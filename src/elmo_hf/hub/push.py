"""Upload a checkpoint to the Hugging Face Hub: weights, config, tokenizer, code, card and results.

    elmo-hf push my-elmo/ someone/my-elmo --dry-run      # list the files and their sizes; send nothing
    push("my-elmo", "someone/my-elmo", private=True)

Everything is checked before anything is sent: the folder loads, it brings its code, and its card is complete.
Then it goes up as one commit, whose parent is the commit that was looked at: a cut connection, or somebody
else's commit in between, leaves the repository as it was. HF_ENDPOINT names
another Hub, HF_TOKEN has the token.
"""

import os
import re
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
from elmo_hf.hub.reading import (
    a_text,
    anything,
    brief,
    check,
    is_text,
    plain_file,
    read_bytes,
    read_json,
    read_text,
)
from elmo_hf.hub.results import files_of_results
from elmo_hf.loading import FAULTS, load_config, tensor_shapes
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

# What is uploaded besides weights, code, card and results.
FILES = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"]
FILES += ["letters.json", "options.json", "facts.yaml"]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OF_WEIGHTS = (".safetensors", ".safetensors.index.json")
RESULTS = (".json", ".md", ".png")
MAX_READ = 50_000_000  # bytes of a file that is not weights
MAX_LISTED = 50  # names of files that are not uploaded
MESSAGE = "Upload ELMo with elmo_hf"
State = tuple[int, ...]


@dataclass(frozen=True)
class Upload:
    """What goes to the Hub.

    Args:
        files: by path in the repository, the bytes that were checked, or the path of weights.
        states: of all files that were read, by which a change since then is noticed.
        stays: files of the folder that are not uploaded.
    """

    files: dict[str, Path | bytes]
    states: dict[Path, State]
    stays: list[str]

    def sizes(self) -> dict[str, int]:
        return {
            name: len(content) if isinstance(content, bytes) else content.lstat().st_size
            for name, content in self.files.items()
        }

    def check_unchanged(self) -> None:
        for path, state in self.states.items():
            if state_of(path) != state:
                raise ElmoError(f"{path} was changed in the meantime, and nothing was uploaded; try again.")


def state_of(path: Path) -> State:
    """What a plain file, which is no link, changes when it is written or replaced."""
    status = plain_file(path)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


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
    """The files to upload, after all checks that need no Hub.

    Only plain files of the folder are uploaded, and of the folder of results: a link is refused, also one by
    which the cache of huggingface_hub makes its snapshots. A hard link looks like any file.
    """
    folder = Path(folder)
    check_name(repo)
    if not os.path.lexists(folder / "config.json"):
        raise ElmoError(f"{folder} holds no model: it has no config.json.")
    paths = {name: folder / name for name in FILES if os.path.lexists(folder / name)}
    paths |= {"facts.yaml": Path(facts)} if facts is not None else {}
    shown = Path(results) if results is not None else folder / "results"
    paths |= {f"results/{path.name}": path for path in files_of_results(shown, RESULTS)}
    readme = [folder / "README.md"] if os.path.lexists(folder / "README.md") else []
    states = {path: state_of(path) for path in [*paths.values(), *readme]}  # before anything is read
    weights = weights_of(folder)
    states |= {path: state_of(path) for path in weights}
    code = code_of(folder, weights)
    states |= {path: state_of(path) for path in code}
    check_loads(folder)
    small = paths | {path.name: path for path in [*weights, *code] if path.suffix != ".safetensors"}
    files: dict[str, Path | bytes] = {name: read_bytes(path, MAX_READ) for name, path in small.items()}
    files |= {path.name: path for path in weights if path.suffix == ".safetensors"}
    files["README.md"] = card_of(folder, repo, facts, results).encode("utf-8")
    upload = Upload(files, states, others(folder, files))
    upload.check_unchanged()
    return upload


def others(folder: Path, files: dict[str, Path | bytes]) -> list[str]:
    """The entries of the folder, and of its results, that are not among the files."""
    entries = [*folder.iterdir(), *(folder / "results").glob("*")]
    names = {path.relative_to(folder).as_posix() + ("/" if path.is_dir() else "") for path in entries}
    left = sorted(ascii(name)[1:-1] for name in names - set(files) - {"results/", "__pycache__/"})
    return left if len(left) <= MAX_LISTED else [*left[:MAX_LISTED], f"and {len(left) - MAX_LISTED:,} more"]


def check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ElmoError(f"{brief(repo)} is no name on the Hub: {reason_of(error)}.") from None
    if repo.count("/") != 1:
        raise ElmoError(f"name the repository as ORG/NAME, not {repo}.")


def card_of(folder: Path, repo: str, facts: str | Path | None, results: str | Path | None) -> str:
    """The card of the facts; without facts, the folder's README.md."""
    path = folder / "README.md"
    readme = read_text(path) if os.path.lexists(path) else None
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
    load_config(folder)
    try:
        model, report = auto_class(folder).from_pretrained(
            folder, output_loading_info=True, use_safetensors=True
        )
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
    has_words = hasattr(model, "lm_head") or config.token_encoder == "words" or config.reads_word_column
    if words != config.vocab_size and has_words:
        raise ElmoError(f"{folder} has a model of {config.vocab_size} words, and a tokenizer of {words}.")


def weights_of(folder: Path) -> list[Path]:
    """The files of the weights that are loaded: one, or an index and the shards that it names."""
    if os.path.lexists(folder / WEIGHTS):
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not os.path.lexists(index):
        raise ElmoError(f"{folder} has no {WEIGHTS}; save the model with save_pretrained.")
    names = check(str(index), read_json(index, MAX_READ), {"weight_map": {"": a_shard}, "": anything})
    return [index, *(folder / name for name in sorted(set(names["weight_map"].values())))]


def a_shard(value: Any) -> str:
    if not is_text(value) or not re.fullmatch(r"\w[\w.-]*\.safetensors", value, re.ASCII):
        raise ElmoError("must be the name of a .safetensors file in the folder")
    return str(value)


def references(value: Any) -> list[str]:
    """Of one or several classes: FILE.CLASS, and never another repository or folder."""
    entries = [entry for entry in (value if isinstance(value, list) else [value]) if entry is not None]
    for entry in entries:
        if not is_text(entry) or not re.fullmatch(r"[a-z_]\w*\.[a-z_]\w*", entry, re.ASCII | re.IGNORECASE):
            raise ElmoError("must name a class as FILE.CLASS, of a file in the folder")
    return entries


CLASSES = {"auto_map?": {"": references}, "architectures?": [a_text], "": anything}


def read_classes(path: Path) -> dict[str, Any]:
    """A config or a tokenizer's config, of which `auto_map` has {"AutoModel": ["file.Class"]}."""
    content = read_json(path, MAX_READ) if os.path.lexists(path) else {}
    return {"auto_map": {}, "architectures": ["its model"]} | check(str(path), content, CLASSES)


def auto_class(folder: Path) -> Any:
    """The Auto class that loads the folder's model with its head."""
    config = read_classes(folder / "config.json")
    architecture = config["architectures"][0]
    for name, classes in config["auto_map"].items():
        names = [reference.split(".")[1] for reference in classes]
        if architecture in names and name.startswith("AutoModel") and hasattr(transformers, name):
            return getattr(transformers, name)
    raise ElmoError(
        f"config.json names no Auto class for {architecture:.80} in its auto_map; use save_pretrained."
    )


def code_of(folder: Path, weights: list[Path]) -> list[Path]:
    """The Python files that the config and the tokenizer name, and those that they import."""
    needed = [("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")]
    shards = [path for path in weights if path.suffix == ".safetensors"]
    if any(name.startswith("elmo.") for path in shards for name in tensor_shapes(path)):
        needed.append(("config.json", "AutoModel"))  # a head without ELMo has none
    maps = {name: read_classes(folder / name)["auto_map"] for name, _ in needed}
    for name, key in needed:
        if key not in maps[name]:
            raise ElmoError(f"{folder / name} has no {key} in its auto_map; save it with save_pretrained.")
    classes = [reference for entry in maps.values() for listed in entry.values() for reference in listed]
    waiting, files = sorted({reference.split(".")[0] for reference in classes}), dict[str, Path]()
    while waiting:
        name = waiting.pop()
        files[name] = path = folder / f"{name}.py"
        if not os.path.lexists(path):
            raise ElmoError(
                f"{folder} lacks {path.name}, which its model needs; save it with save_pretrained."
            )
        read_text(path)  # a plain file in UTF-8
        for module in get_relative_imports(path):
            if not re.fullmatch(r"[a-z_]\w*", module, re.ASCII | re.IGNORECASE):
                raise ElmoError(
                    f"{path} imports {brief(module)}, which is not beside it; copy what it needs."
                )
            waiting += [module] if module not in files else []
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
    upload.check_unchanged()
    remote = [file.rfilename for file in (info.siblings if info is not None else None) or []]
    old = [
        name for name in remote if name.endswith(OF_WEIGHTS) and "/" not in name and name not in upload.files
    ]
    return [
        *(
            CommitOperationAdd(name, content if isinstance(content, bytes) else content.absolute())
            for name, content in upload.files.items()
        ),
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
