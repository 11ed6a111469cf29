"""What is on the Hub: the repository that a push goes to, files of others in it, and benchmarks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import yaml
from huggingface_hub import HfApi, ModelInfo, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff
from huggingface_hub.utils.sha import git_hash

from elmo_hf.errors import ElmoError, reason_of
from elmo_hf.hub import benchmarks
from elmo_hf.hub.reading import MAX_BYTES, parse_yaml
from elmo_hf.hub.signature import is_unedited, unsigned

MAX_CHECKED = 100  # files of results on the Hub that are read, to see whether they are ours
README = "README.md"


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


def read_remote(api: HfApi, repo: str, file: str, revision: str | None) -> str | None:
    """A small text on the Hub; None for another file. A dataset is named as "datasets/ORG/NAME"."""
    address = f"{api.endpoint}/{repo}/resolve/{revision}/{quote(file)}"
    content = b""
    with http_stream_backoff("GET", address, headers=build_hf_headers(), follow_redirects=True) as response:
        hf_raise_for_status(response)
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                return None
    with suppress(UnicodeDecodeError):
        return content.decode("utf-8").replace("\r\n", "\n")
    return None


# ---- files of others


def check_kept(
    api: HfApi,
    repo: str,
    info: ModelInfo,
    files: Mapping[str, Path | bytes],
    ask: Callable[[str], bool] | None,
) -> None:
    """Refuse to replace a card or a result that others wrote or edited, unless `ask` agrees."""
    for file in info.siblings or []:
        path, content = file.rfilename, files.get(file.rfilename)
        if not isinstance(content, bytes) or not is_generated(path) or file.blob_id == git_hash(content):
            continue
        if is_replaceable(read_remote(api, repo, path, info.sha), content):
            continue
        if ask is None or not ask(f"{repo} has another {path}; overwrite it?"):
            raise ElmoError(f"{repo} has another {path}, which is kept; --overwrite-card replaces it.")


def is_generated(path: str) -> bool:
    return path == README or (path.startswith(f"{benchmarks.FOLDER}/") and path.endswith(".yaml"))


def is_replaceable(theirs: str | None, ours: bytes) -> bool:
    """A text that `elmo-hf card` wrote and nobody edited. Of a card of 0.1.0, which has no checksum, that is
    known only if it is the new card but for the checksum."""
    return theirs is not None and (is_unedited(theirs) or theirs == unsigned(ours.decode("utf-8")))


def outdated_results(api: HfApi, repo: str, info: ModelInfo, files: Mapping[str, Path | bytes]) -> list[str]:
    """Results on benchmarks that an earlier push wrote and nobody edited: scores of the earlier weights."""
    names = [file.rfilename for file in info.siblings or []]
    old = [name for name in names if name != README and is_generated(name) and name not in files]
    return [name for name in old[:MAX_CHECKED] if is_unedited(read_remote(api, repo, name, info.sha) or "")]


# ---- benchmarks


def check_benchmarks(api: HfApi, files: Mapping[str, Path | bytes]) -> None:
    """The benchmarks that the files of results name are there, and have the tasks."""
    for path, content in files.items():
        if path.startswith(f"{benchmarks.FOLDER}/") and isinstance(content, bytes):
            for entry in yaml.safe_load(content):
                check_benchmark(api, entry["dataset"]["id"], entry["dataset"]["task_id"])


def check_benchmark(api: HfApi, name: str, task: str) -> None:
    try:
        info = api.dataset_info(name)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        raise ElmoError(
            f"there is no dataset {name} on the Hub, which the facts name as a benchmark; correct its id."
        ) from None
    if benchmarks.TASKS not in [file.rfilename for file in info.siblings or []]:
        raise ElmoError(
            f"the dataset {name} is no benchmark, as it has no {benchmarks.TASKS}; remove it from the facts."
        )
    tasks = tasks_of(api, name, info.sha)
    if tasks and task not in tasks:
        raise ElmoError(
            f"the benchmark {name} has no task {task}, but {', '.join(sorted(tasks)):.200}; correct task_id."
        )


def tasks_of(api: HfApi, name: str, revision: str | None) -> set[str]:
    """The names of a benchmark's tasks; none if they cannot be read, as in a gated dataset."""
    try:
        text = read_remote(api, f"datasets/{name}", benchmarks.TASKS, revision)
        content = parse_yaml(benchmarks.TASKS, text or "")
        tasks = [task for task in content["tasks"] if isinstance(task, dict)]
    except (RepositoryNotFoundError, EntryNotFoundError, ElmoError, KeyError, TypeError):
        return set()
    # Some benchmarks have the dataset's name as the only `id`, and results call the task by its `config`.
    return {str(task[key]) for task in tasks for key in ("id", "config") if task.get(key)}


# ---- errors


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
