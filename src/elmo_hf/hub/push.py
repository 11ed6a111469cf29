"""Upload a checkpoint to the Hugging Face Hub: weights, config, tokenizer, code, card and results.

    elmo-hf push my-elmo/ someone/my-elmo --dry-run      # list the files and their sizes; send nothing
    push("my-elmo", "someone/my-elmo", private=True)

Everything is checked before anything is sent: the folder loads, it brings its code, and its card is complete.
Then it goes up as one commit, whose parent is the commit that was looked at: a cut connection, or somebody
else's commit in between, leaves the repository as it was. HF_ENDPOINT names
another Hub, HF_TOKEN has the token.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.hub import benchmarks
from elmo_hf.hub.card import Card, check_card, render
from elmo_hf.hub.folder import (
    MAX_READ,
    OPTIMIZER,
    check_loads,
    check_optimizer,
    code_of,
    optimizer_of,
    weights_of,
)
from elmo_hf.hub.reading import brief, plain_file, read_bytes, read_text
from elmo_hf.hub.remote import check_benchmarks, check_kept, look_up, one_sentence, outdated_results
from elmo_hf.hub.results import files_of_results
from elmo_hf.hub.signature import unsigned

# What is uploaded besides weights, code, card and results.
FILES = ["config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"]
FILES += ["letters.json", "options.json", "facts.yaml"]
OF_WEIGHTS = (".safetensors", ".safetensors.index.json")
RESULTS = (".json", ".md", ".png")
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

    def listing(self, repo: str) -> str:
        """The files with their sizes, for `--dry-run`."""
        sizes = self.sizes()
        lines = [f"{size:>15,}  {name}" for name, size in sizes.items()]
        lines.append(f"{sum(sizes.values()):>15,}  bytes would be uploaded to {repo}; nothing was sent.")
        return "\n".join([*lines, f"Not uploaded: {', '.join(self.stays)}."] if self.stays else lines)

    def check_unchanged(self) -> None:
        for path, state in self.states.items():
            if state_of(path) != state:
                raise ElmoError(f"{path} was changed in the meantime, and nothing was uploaded; try again.")


def state_of(path: Path) -> State:
    """What a plain file, which is no link, changes when it is written or replaced."""
    status = plain_file(path)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Destination:
    """Where on the Hub an upload goes, and what may be replaced there; the fields are arguments of `push`."""

    repo: str
    branch: str = "main"
    private: bool = False
    create_pr: bool = False
    overwrite_card: bool = False
    ask: Callable[[str], bool] | None = None
    message: str = MESSAGE

    def __post_init__(self) -> None:
        if self.create_pr and self.branch != "main":
            raise ElmoError(
                f"a pull request goes to main; leave out the branch {self.branch}, or the request."
            )


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
    with_optimizer: bool = False,
) -> str:
    """Upload the checkpoint of a folder as one commit, or not at all.

    >>> push("my-tagger", "someone/my-tagger")  # with the token of `hf auth login`
    'http...'

    Args:
        folder: the checkpoint's folder.
        repo: "ORG/NAME"; the repository is made if it is not there.
        facts: metadata of the card; default: `facts.yaml` in the folder.
        results: results for the card; default: the folder `results` in the folder.
        private: make the repository private; one that is there must be private already.
        branch: where the commit goes; default: main. It is made from main if it is not there.
        create_pr: open a pull request in place of a commit.
        overwrite_card: replace a card or benchmark result on the Hub that others wrote or edited.
        ask: asked whether to replace such a file; without it, that is refused.
        message: of the commit.
        with_optimizer: also upload `adagrad.safetensors`, from which pretraining can go on.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        ElmoError: the folder is not complete, or the Hub refused something.
    """
    destination = Destination(repo, branch or "main", private, create_pr, overwrite_card, ask, message)
    return send(prepare(folder, repo, facts, results, with_optimizer), destination)


def send(upload: Upload, to: Destination) -> str:
    """Make the commit; its address."""
    if get_token() is None:
        raise ElmoError("there are no credentials for the Hub; run `hf auth login`, or set HF_TOKEN.")
    api = HfApi()
    with one_sentence(to.repo):
        info, has_branch = look_up(api, to.repo, to.branch)
        check_remote(api, info, upload, to)
        is_new = info is None
        if is_new:
            api.create_repo(to.repo, private=to.private)
    with one_sentence(to.repo, f" The repository {to.repo} was made for it." if is_new else ""):
        if info is None:
            info, has_branch = look_up(api, to.repo, to.branch)
        operations = operations_for(api, upload, to.repo, info)
        if not has_branch:
            api.create_branch(to.repo, branch=to.branch, exist_ok=True)
        commit = api.create_commit(
            to.repo,
            operations,
            commit_message=to.message,
            revision=to.branch,
            create_pr=to.create_pr,
            parent_commit=info.sha if info is not None else None,
        )
    return commit.pr_url or commit.commit_url


def check_remote(api: HfApi, info: ModelInfo | None, upload: Upload, to: Destination) -> None:
    """Nothing private becomes public, no file is replaced that others wrote, and all benchmarks are there."""
    if info is None:
        if to.create_pr:
            raise ElmoError(
                f"there is no repository {to.repo} for a pull request; leave that out to make it."
            )
    elif to.private and not info.private:
        raise ElmoError(f"{to.repo} is there and public; make it private in its settings, or name another.")
    elif not to.overwrite_card:
        check_kept(api, to.repo, info, upload.files, to.ask)
    check_benchmarks(api, upload.files)


def operations_for(
    api: HfApi, upload: Upload, repo: str, info: ModelInfo | None
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """The files; and the removal of weights under other names, which might be loaded in place of these, and
    of results on benchmarks that an earlier push wrote. The optimizer's state is no weights: it stays."""
    old = outdated_results(api, repo, info, upload.files) if info is not None else []
    upload.check_unchanged()
    for file in (info.siblings if info is not None else None) or []:
        name = file.rfilename
        is_weights = name.endswith(OF_WEIGHTS) and "/" not in name and name != OPTIMIZER
        old += [name] if is_weights and name not in upload.files else []
    return [
        *(
            CommitOperationAdd(name, content if isinstance(content, bytes) else content.absolute())
            for name, content in upload.files.items()
        ),
        *(CommitOperationDelete(name) for name in old),
    ]


# ---- what is uploaded


def prepare(
    folder: str | Path,
    repo: str,
    facts: str | Path | None = None,
    results: str | Path | None = None,
    with_optimizer: bool = False,
) -> Upload:
    """The files to upload, after all checks that need no Hub; arguments as of `push`.

    Only plain files of the folder are uploaded, and of the folder of results: a link is refused, also one by
    which the cache of huggingface_hub makes its snapshots. A hard link looks like any file.
    """
    folder = Path(folder)
    check_name(repo)
    if not os.path.lexists(folder / "config.json"):
        raise ElmoError(f"{folder} holds no model: it has no config.json.")
    paths = texts_of(folder, facts, results)
    readme = [folder / "README.md"] if os.path.lexists(folder / "README.md") else []
    states = {path: state_of(path) for path in [*paths.values(), *readme]}  # before anything is read
    weights = weights_of(folder)
    optimizer = [optimizer_of(folder)] if with_optimizer else []
    states |= {path: state_of(path) for path in [*weights, *optimizer]}
    code = code_of(folder, weights)
    states |= {path: state_of(path) for path in code}
    check_loads(folder)
    check_optimizer(optimizer, weights)
    large = {path.name: path for path in [*weights, *optimizer] if path.suffix == ".safetensors"}
    small = paths | {path.name: path for path in [*weights, *code] if path.name not in large}
    files: dict[str, Path | bytes] = {name: read_bytes(path, MAX_READ) for name, path in small.items()}
    files |= large
    card = card_of(folder, repo, facts, results)
    files |= {name: text.encode("utf-8") for name, text in card.benchmarks.items()}
    files["README.md"] = card.readme.encode("utf-8")
    upload = Upload(files, states, others(folder, files))
    upload.check_unchanged()
    return upload


def texts_of(folder: Path, facts: str | Path | None, results: str | Path | None) -> dict[str, Path]:
    """The files besides weights, code and card, by their paths in the repository."""
    paths = {name: folder / name for name in FILES if os.path.lexists(folder / name)}
    paths |= {"facts.yaml": Path(facts)} if facts is not None else {}
    shown = Path(results) if results is not None else folder / "results"
    return paths | {f"results/{path.name}": path for path in files_of_results(shown, RESULTS)}


def others(folder: Path, files: dict[str, Path | bytes]) -> list[str]:
    """The entries of the folder, and of its results, that are not among the files."""
    inner = ("results", benchmarks.FOLDER)
    entries = [*folder.iterdir(), *(path for name in inner for path in (folder / name).glob("*"))]
    names = {path.relative_to(folder).as_posix() + ("/" if path.is_dir() else "") for path in entries}
    left = sorted(
        ascii(name)[1:-1] for name in names - set(files) - {*(f"{name}/" for name in inner), "__pycache__/"}
    )
    return left if len(left) <= MAX_LISTED else [*left[:MAX_LISTED], f"and {len(left) - MAX_LISTED:,} more"]


def check_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ElmoError(f"{brief(repo)} is no name on the Hub: {reason_of(error)}.") from None
    if repo.count("/") != 1:
        raise ElmoError(f"name the repository as ORG/NAME, not {repo}.")


def card_of(folder: Path, repo: str, facts: str | Path | None, results: str | Path | None) -> Card:
    """The card of the facts; without facts, the folder's README.md."""
    path = folder / "README.md"
    readme = read_text(path) if os.path.lexists(path) else None
    if facts is None and not (folder / "facts.yaml").is_file():
        if readme is None:
            raise ElmoError(f"{folder} has no card: write facts.yaml for `elmo-hf card`, or a README.md.")
        check_card(readme, str(folder))
        return Card(readme, {})
    card = render(folder, facts, results, repo)
    if readme is not None and unsigned(readme) not in (
        unsigned(text) for text in (card.readme, render(folder, facts, results).readme)
    ):
        raise ElmoError(f"{path} is not what its facts and results give; run `elmo-hf card`, or remove it.")
    return card
