"""A local Hub for tests: the routes of huggingface.co that huggingface_hub needs to send and fetch models.

    with Hub({"secret": {"someone"}}) as hub:
        hub.url                                     # HF_ENDPOINT; the token "secret" may write to someone/...
        hub.files("someone/elmo", "main")           # {"config.json": b"...", ...}
        hub.cut_uploads = 1                         # the next upload ends in the middle
        hub.before_commit = lambda: hub.commit("someone/elmo", {"README.md": b"# Theirs"})

Routes and headers are those of huggingface_hub 2.4: repositories and branches are made, files are sent as
base64 in a commit or by LFS before it, and downloads have ranges and redirects.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

DATASETS = "datasets/"  # begins the names of repositories that are no models
EVALUATION = {"dataset", "value", "verifyToken", "date", "source", "notes"}
LFS_SUFFIXES = (".safetensors", ".bin", ".hdf5")


class Refusal(Exception):
    """An error response; `code` is the header X-Error-Code."""

    def __init__(self, status, message, code=None):
        self.status, self.message, self.code = status, message, code


class Repository:
    def __init__(self, private, gated=False):
        self.private, self.gated = private, gated
        self.commits = {}  # sha -> {path: content}
        self.branches = {}
        self.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})

    def commit(self, branch, added, removed=()):
        files = dict(self.commits[self.branches[branch]]) if branch in self.branches else {}
        files = {path: content for path, content in (files | added).items() if path not in removed}
        sha = hashlib.sha1(repr((len(self.commits), branch, sorted(files.items()))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision):
        sha = self.branches.get(revision, revision)
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha


class Hub:
    """`rights`: the owners for which each token may write."""

    def __init__(self, rights):
        self.rights = rights
        self.repositories, self.stored = {}, {}  # stored: LFS contents by their sha256
        self.requests = []  # "METHOD /path", in their order
        self.cut_uploads = self.cut_downloads = 0  # this many of the next transfers are cut in the middle
        self.before_commit = None
        self.broken = {}  # text in a path -> status
        self.lock = threading.RLock()

    def __enter__(self):
        handler = type("Bound", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def storage_url(self):
        """Another host, as for the Hub's large files: the client sends no token there."""
        return f"http://localhost:{self.server.server_port}"

    def files(self, name, revision="main"):
        repository = self.repositories[name]
        return repository.commits[repository.find(revision)]

    def commit(self, name, files, branch="main"):
        """A commit of somebody else."""
        return self.repositories[name].commit(branch, files)

    def add_dataset(self, name, files, private=False, gated=False):
        """A dataset of somebody else; who has not asked for a gated one sees its files' names only."""
        self.repositories[f"{DATASETS}{name}"] = repository = Repository(private, gated)
        repository.commit("main", files)

    def count(self, part):
        return sum(part in request for request in self.requests)


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer("GET")

    def do_HEAD(self):
        self.answer("HEAD")

    def do_POST(self):
        self.answer("POST")

    def do_PUT(self):
        self.answer("PUT")

    def answer(self, method):
        address = urlsplit(self.path)
        segments = [unquote(part) for part in address.path.strip("/").split("/")]
        self.query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.hub.requests.append(f"{method} {unquote(self.path)}")
        if method == "PUT" and self.hub.cut_uploads:
            self.hub.cut_uploads -= 1
            self.rfile.read(int(self.headers["Content-Length"]) // 2)
            return self.cut()
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        try:
            for part, status in self.hub.broken.items():
                if part in self.path:
                    raise Refusal(status, "something broke")
            with self.hub.lock:
                self.route(method, segments)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.reply(json.dumps({"error": refusal.message}).encode(), refusal.status, headers)

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def route(self, method, segments):
        match method, segments:
            case "POST", ["api", "repos", "create"]:
                self.create(json.loads(self.body))
            case "POST", ["api", "validate-yaml"]:
                self.validate(json.loads(self.body)["content"])
            case "GET", ["api", "models", owner, name]:
                self.describe(f"{owner}/{name}", "main")
            case "GET", ["api", "models", owner, name, "revision", revision]:
                self.describe(f"{owner}/{name}", revision)
            case "GET", ["api", "datasets", owner, name]:
                self.describe(f"{DATASETS}{owner}/{name}", "main")
            case "GET", ["api", "models", owner, name, "tree", revision, *path]:
                self.tree(f"{owner}/{name}", revision, "/".join(path))
            case "POST", ["api", "models", owner, name, "branch", branch]:
                self.branch(f"{owner}/{name}", branch, json.loads(self.body))
            case "POST", ["api", "models", owner, name, "preupload", revision]:
                self.preupload(f"{owner}/{name}", revision, json.loads(self.body)["files"])
            case "POST", [owner, name, "info", "lfs", "objects", "batch"]:
                self.lfs_batch(f"{owner}/{name.removesuffix('.git')}", json.loads(self.body)["objects"])
            case "PUT", ["lfs", oid]:
                self.store(oid)
            case "POST", ["lfs", oid]:
                self.json({} if oid in self.hub.stored else {"error": "not here"})
            case "POST", ["api", "models", owner, name, "commit", revision]:
                self.commit(
                    f"{owner}/{name}", revision, [json.loads(line) for line in self.body.splitlines()]
                )
            case "GET" | "HEAD", ["lfs", oid]:
                self.send_file(self.hub.stored[oid], {"ETag": f'"{oid}"'})
            case "GET" | "HEAD", ["datasets", owner, name, "resolve", revision, *path]:
                self.resolve(f"{DATASETS}{owner}/{name}", revision, "/".join(path))
            case "GET" | "HEAD", [owner, name, "resolve", revision, *path]:
                self.resolve(f"{owner}/{name}", revision, "/".join(path))
            case _:
                raise Refusal(404, f"there is no route {method} {self.path}")

    # ---- rights

    def owners(self):
        """The owners for which the token may write; None without a token."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        if header.removeprefix("Bearer ") not in self.hub.rights:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.rights[header.removeprefix("Bearer ")]

    def find(self, name, to_write=False):
        owners = self.owners()
        if owners is None and to_write:
            raise Refusal(401, "Invalid username or password.")
        repository = self.hub.repositories.get(name)
        name = name.removeprefix(DATASETS)
        if repository is None or (repository.private and name.split("/")[0] not in (owners or ())):
            raise Refusal(404 if owners is not None else 401, "Repository not found", "RepoNotFound")
        if to_write and name.split("/")[0] not in owners:
            raise Refusal(403, "you don't have the rights")
        return repository

    # ---- routes

    def create(self, request):
        owners, name = self.owners(), f"{request['organization']}/{request['name']}"
        if owners is None:
            raise Refusal(401, "Invalid username or password.")
        if request["organization"] not in owners:
            raise Refusal(403, "you don't have the rights to make a repository there")
        if name in self.hub.repositories:
            return self.json(
                {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409
            )
        self.hub.repositories[name] = Repository(request.get("visibility") == "private")
        self.json({"url": f"{self.hub.url}/{name}", "name": name})

    def validate(self, content):
        if "license: no-such" in content:
            self.json({"errors": [{"message": '"license" must be known'}], "warnings": []}, 400)
        else:
            self.json({"errors": [], "warnings": []})

    def describe(self, name, revision):
        repository = self.find(name)
        sha = repository.find(revision)
        files = [
            {"rfilename": path, "size": len(content), "blobId": git_blob(content)}
            for path, content in repository.commits[sha].items()
        ]
        described = {"id": name.removeprefix(DATASETS), "sha": sha, "private": repository.private}
        if "evalResults" in self.query.get("expand", ""):
            return self.json(described | {"evalResults": evaluations(repository.commits[sha])})
        self.json(described | {"siblings": files, "tags": []})

    def tree(self, name, revision, folder):
        repository = self.find(name)
        files = repository.commits[repository.find(revision)]
        inside = {
            path: content for path, content in files.items() if path.startswith(f"{folder}/") or not folder
        }
        if not inside:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        self.json(
            [
                {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
                for path, content in inside.items()
            ]
        )

    def branch(self, name, branch, request):
        repository = self.find(name, to_write=True)
        if branch in repository.branches:
            raise Refusal(409, f"Reference already exists: {branch}")
        repository.branches[branch] = repository.find(request.get("startingPoint", "main"))
        self.json({})

    def preupload(self, name, revision, files):
        repository = self.find(name, to_write="create_pr" not in self.query)
        existing = repository.commits[repository.find(revision)]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": remote_oid(file["path"], existing.get(file["path"])),
            }
            for file in files
        ]
        self.json({"files": modes})

    def lfs_batch(self, name, objects):
        self.find(name)
        answers = []
        for entry in objects:
            href = f"{self.hub.storage_url}/lfs/{entry['oid']}"
            actions = {} if entry["oid"] in self.hub.stored else {"actions": {"upload": {"href": href}}}
            if actions:
                actions["actions"]["verify"] = {"href": href}
            answers.append({"oid": entry["oid"], "size": entry["size"], **actions})
        self.json({"transfer": "basic", "objects": answers})

    def store(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "the content is not what its name says")
        self.hub.stored[oid] = self.body
        self.reply(b"", headers={"ETag": f'"{oid}"'})

    def commit(self, name, revision, lines):
        if self.hub.before_commit is not None:
            self.hub.before_commit()
        is_request = "create_pr" in self.query
        repository = self.find(name, to_write=not is_request)
        head, added, removed = repository.find(revision), {}, set()
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", head) != head:
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            if line["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise Refusal(400, f"{value['path']} was not uploaded")
                added[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                removed.add(value["path"])
        if is_request:
            requests = sum(branch.startswith("refs/pr/") for branch in repository.branches)
            revision = f"refs/pr/{requests + 1}"
            repository.branches[revision] = head
        sha = repository.commit(revision, added, removed)
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"}
        if is_request:
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{revision.split('/')[-1]}"
        self.json(answer)

    def resolve(self, name, revision, path):
        repository = self.find(name)
        if repository.gated:
            raise Refusal(403, "Access to this resource is restricted.", "GatedRepo")
        sha = repository.find(revision)
        headers = {"X-Repo-Commit": sha}
        content = repository.commits[sha].get(path)
        if content is None:
            errors = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.reply(b"", 404, headers | errors)
        elif path.endswith(LFS_SUFFIXES):
            oid = hashlib.sha256(content).hexdigest()
            self.hub.stored[oid] = content
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self.reply(b"", 302, headers | {"Location": f"{self.hub.storage_url}/lfs/{oid}"})
        else:
            self.send_file(content, headers | {"ETag": f'"{git_blob(content)}"'})

    # ---- responses

    def json(self, content, status=200):
        self.reply(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def send_file(self, content, headers):
        start, status = self.headers.get("Range", ""), 200
        if start.startswith("bytes="):
            first = int(start.removeprefix("bytes=").split("-")[0])
            headers = headers | {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            content, status = content[first:], 206
        self.reply(content, status, headers | {"Accept-Ranges": "bytes"})

    def reply(self, content, status=200, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_downloads and self.path.startswith("/lfs/"):
            self.hub.cut_downloads -= 1
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            return self.cut()
        self.wfile.write(content)


def evaluations(files):
    """The entries of `.eval_results`, each with its file; a file that is none has an error."""
    entries = []
    for path, content in files.items():
        if path.startswith(".eval_results/") and path.endswith(".yaml"):
            try:
                for entry in yaml.safe_load(content):
                    assert set(entry) <= EVALUATION
                    assert set(entry["dataset"]) <= {"id", "task_id", "revision"}
                    assert all(isinstance(entry["dataset"][name], str) for name in ("id", "task_id"))
                    assert isinstance(entry["value"], int | float)
                    assert "url" in entry.get("source", {"url": ""})
                    entries.append({"filename": path, "data": entry})
            except (AssertionError, KeyError, TypeError, yaml.YAMLError) as error:
                entries.append({"filename": path, "error": repr(error)})
    return entries


def git_blob(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def remote_oid(path, content):
    """What the client compares, to skip files that are there already."""
    if content is None:
        return None
    return hashlib.sha256(content).hexdigest() if path.endswith(LFS_SUFFIXES) else git_blob(content)
