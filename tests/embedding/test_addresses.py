"""`embed` from and to addresses: memory://, file://, http:// and s3:// of a server on this machine."""

import http.server
import json
import sys
import threading

import fsspec
import numpy as np
import pytest

import elmo_hf
from elmo_hf import ElmoError, read_vectors
from elmo_hf.corpus.pieces import piece_of
from elmo_hf.corpus.source import open_records
from elmo_hf.embedding.folders import RemoteFolder
from elmo_hf.errors import without_secrets
from tests.helpers.embed_corpora import FORMATS, SMALL, contents, sentences, write_corpus


@pytest.fixture
def memory():
    """An empty store in memory."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


def stored(store, folder):
    """The files of a folder of a store, by their names."""
    return {path.rpartition("/")[2]: store.cat_file(path) for path in store.find(folder)}


@pytest.mark.parametrize("format", FORMATS)
def test_a_store_has_the_files_of_a_folder(model, memory, tmp_path, format):
    corpus = write_corpus(tmp_path / "corpus.txt")
    memory.pipe_file("/texts/corpus.txt", corpus.read_bytes())
    options = SMALL | {"format": format}
    whole = elmo_hf.embed(corpus, tmp_path / "out", model, **options)
    vectors = elmo_hf.embed("memory://texts/corpus.txt", "memory://vectors/a", model, **options)
    assert stored(memory, "/vectors/a") == contents(tmp_path / "out")
    assert len(vectors) == 60
    for number in (0, 31, 59):
        assert vectors[number].words == whole[number].words
        assert np.array_equal(vectors[number].vectors, whole[number].vectors)


@pytest.mark.parametrize("format", ["safetensors", "parquet", "npy", "hdf5"])
def test_a_job_in_a_store_goes_on_after_each_upload(model, memory, tmp_path, monkeypatch, format):
    """It dies before each upload in turn, and makes no shard twice."""
    lines = sentences(30)
    options = SMALL | {"format": format, "shard_words": 60}
    elmo_hf.embed(lines, tmp_path / "out", model, **options)
    whole, uploads, made = contents(tmp_path / "out"), 0, []
    upload = RemoteFolder._upload

    class Died(BaseException):
        pass

    def dying(folder, path):
        if len(made) == uploads:
            raise Died
        made.append(path.name)
        upload(folder, path)

    while True:
        made.clear()
        with monkeypatch.context() as patch:
            patch.setattr(RemoteFolder, "_upload", dying)
            try:
                elmo_hf.embed(lines, f"memory://v/{uploads}", model, **options)
                break
            except Died:
                assert {*stored(memory, f"/v/{uploads}")} == {*made}
        first = [name for name in made if name.startswith("vectors-")]
        made.clear()
        with monkeypatch.context() as patch:
            patch.setattr(RemoteFolder, "_upload", lambda *a: (made.append(a[1].name), upload(*a)))
            elmo_hf.embed(lines, f"memory://v/{uploads}", model, **options)
        if format != "npy":  # of which the array comes first, and counts when its words are there
            assert not {*first} & {*made}
        assert stored(memory, f"/v/{uploads}") == whole
        uploads += 1
    assert uploads >= 5


def test_a_half_written_shard_in_a_store_is_made_again(model, memory, tmp_path):
    for format in ("safetensors", "parquet", "npy"):
        options, address = SMALL | {"format": format}, f"memory://v/{format}"
        elmo_hf.embed(sentences(40), address, model, **options)
        whole = stored(memory, f"/v/{format}")
        name = f"/v/{format}/vectors-00001." + ("json" if format == "npy" else format)
        memory.pipe_file(name, memory.cat_file(name)[:-9])
        memory.rm_file(f"/v/{format}/index.json")
        elmo_hf.embed(sentences(40), address, model, **options)
        assert stored(memory, f"/v/{format}") == whole


@pytest.mark.parametrize("content", [b"5", b"[]", b'{"first": 0}'])
def test_a_header_in_a_store_that_is_none(model, memory, content):
    elmo_hf.embed(sentences(40), "memory://v", model, **SMALL | {"format": "npy"})
    whole = stored(memory, "/v")
    memory.pipe_file("/v/vectors-00001.json", content)
    memory.rm_file("/v/index.json")
    elmo_hf.embed(sentences(40), "memory://v", model, **SMALL | {"format": "npy"})
    assert stored(memory, "/v") == whole


def test_a_header_of_safetensors_in_a_store_without_offsets(model, memory):
    elmo_hf.embed(sentences(40), "memory://v", model, **SMALL)
    whole = stored(memory, "/v")
    header = json.dumps({"__metadata__": {"elmo_hf": "{}"}, "vectors": {"data_offsets": []}}).encode()
    memory.pipe_file("/v/vectors-00001.safetensors", len(header).to_bytes(8, "little") + header)
    memory.rm_file("/v/index.json")
    elmo_hf.embed(sentences(40), "memory://v", model, **SMALL)
    assert stored(memory, "/v") == whole


def test_damaged_hdf5_in_a_store_is_named_by_its_address(model, memory):
    elmo_hf.embed(sentences(40), "memory://v", model, **SMALL | {"format": "hdf5"})
    whole = stored(memory, "/v")
    words = whole["words.jsonl"].splitlines(keepends=True)
    memory.pipe_file("/v/words.jsonl", b"".join([b"3\n", *words[1:]]))
    vectors = read_vectors("memory://v")
    with pytest.raises(ElmoError, match=r"^memory://v/words\.jsonl is missing or damaged"):
        vectors[0]
    memory.pipe_file("/v/vectors.hdf5", b"no HDF5")
    with pytest.raises(ElmoError, match=r"^memory://v/vectors\.hdf5 is missing or damaged"):
        read_vectors("memory://v")


def test_shards_in_a_store_are_read_together(model, memory, tmp_path):
    lines = sentences(60)
    memory.pipe_file("/t/a.txt", "".join(line + "\n" for line in lines[:37]).encode())
    memory.pipe_file("/t/b.txt", "".join(line + "\n" for line in lines[37:]).encode())
    memory.pipe_file("/t/c.md", b"something else")
    for number in (2, 1, 3):
        output = f"memory://v/{number}"
        elmo_hf.embed("memory://t/*.txt", output, model, shard=f"{number}/3", whitespace=True, **SMALL)
    joined = read_vectors("memory://v")
    assert [words for words, _ in joined] == [line.split() for line in lines]
    assert len(read_vectors([f"memory://v/{number}" for number in (1, 2, 3)])) == 60


def test_a_file_address_is_a_path(model, tmp_path):
    corpus = write_corpus(tmp_path / "corpus.txt")
    elmo_hf.embed(f"file://{tmp_path}/*.txt", f"file://{tmp_path}/out", model, **SMALL)
    elmo_hf.embed(corpus, tmp_path / "same", model, **SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "same")
    assert len(read_vectors(f"file://{tmp_path}/out")) == 60


MISTAKES = [
    ("memory://no/a.txt", "memory://out", "there is no file memory://no/a.txt."),
    ("memory://no/*.txt", "memory://out", r"there is no file memory://no/\*.txt."),
    ("memory://t", "memory://out", r"memory://t is a folder; say memory://t/\* for the files in it."),
    (
        "what://t/a.txt",
        "memory://out",
        "what://t/a.txt begins with what://, which is no protocol that fsspec",
    ),
    ("memory://t/a.txt", "memory://t/a.txt", "the output memory://t/a.txt is a file; name a folder."),
    ("memory://t/a.txt", "memory://t", r"the output folder memory://t holds something else \(a.txt\)"),
    ("memory://t/a.txt", "https://host/out", "https://host/out can be read, but not written; name a folder"),
    ("https://u:pw@127.0.0.1:9/a?sig=pw", "memory://out", r"https://\*\*\*@127.0.0.1:9/a\?\*\*\*"),
]


@pytest.mark.parametrize(("source", "output", "message"), MISTAKES)
def test_mistakes_before_anything_is_written(model, memory, source, output, message):
    memory.pipe_file("/t/a.txt", b"Ice is cold .\n")
    with pytest.raises(ElmoError, match=message) as error:
        elmo_hf.embed(source, output, model, **SMALL)
    assert "\n" not in str(error.value)
    assert "pw" not in str(error.value)
    assert memory.find("/") == ["/t/a.txt"]


def test_another_plan_in_a_store_is_refused(model, memory):
    lines = sentences(20)
    elmo_hf.embed(lines, "memory://v", model, **SMALL)
    with pytest.raises(ElmoError, match="memory://v was begun with another layers"):
        elmo_hf.embed(lines, "memory://v", model, layers="all", **SMALL)
    memory.rm_file("/v/index.json")
    with pytest.raises(ElmoError, match="from memory://v: it was not finished; run the same command again"):
        read_vectors("memory://v")
    memory.pipe_file("/v/index.json", b"{}")
    with pytest.raises(ElmoError, match=r"memory://v/index\.json is damaged"):
        read_vectors("memory://v")
    memory.pipe_file("/v/index.json", b"{")
    with pytest.raises(ElmoError, match=r"memory://v/index\.json is no JSON"):
        read_vectors("memory://v")


def test_a_missing_library_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for name in ("s3", "s3a"):  # which may have been loaded
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
    with pytest.raises(
        ElmoError, match=r"^s3://b/a.txt cannot be opened here; pip install 'elmo-hf\[s3\]'\.$"
    ):
        elmo_hf.embed("s3://b/a.txt", "memory://v", model, **SMALL)
    with pytest.raises(ElmoError, match=r"^s3://b/v cannot be opened here; pip install 'elmo-hf\[s3\]'\.$"):
        elmo_hf.embed(["Why ?"], "s3://b/v", model, **SMALL)


def test_no_secret_of_an_address_is_shown():
    texts = {
        "s3://key:se/cret@b": "s3://key:se/cret@b",  # a slash ends the host
        "no file https://me:pw@h/a.txt.": "no file https://***@h/a.txt.",
        "https://h/a?X-Amz-Signature=ab.c&b=1: 403": "https://h/a?***: 403",
        "('https://h/a?sig=abc', 'https://p@h/b?c=d')": "('https://h/a?***', 'https://***@h/b?***')",
        "s3://b/part-?.txt and hf://datasets/a/b@main/c": "s3://b/part-?.txt and hf://datasets/a/b@main/c",
        "why? a=b": "why? a=b",
    }
    for text, shown in texts.items():
        assert without_secrets(text) == shown
        assert str(ElmoError(text)) == shown


# ---- servers


@pytest.fixture
def web(tmp_path):
    """The address of `tmp_path`, served without ranges, as the simplest servers do."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pieces_from_a_web_server(web, tmp_path):
    write_corpus(tmp_path / "a.txt")
    rows = [{"text": text} for text in sentences(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("a.txt", "a.jsonl"):
        whole = list(open_records(tmp_path / name).records())
        cut = [piece_of(open_records(f"{web}/{name}"), f"{number}/3") for number in (1, 2, 3)]
        assert [record for piece in cut for record in piece.records()] == whole
    with pytest.raises(ElmoError, match=r"there is no file http.*/b\.txt|/b\.txt cannot be read") as error:
        open_records(f"{web}/b.txt?sig=secret")
    assert "secret" not in str(error.value)


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket of an S3 server on this machine."""
    pytest.importorskip("s3fs", reason="needs `elmo-hf[s3]`")
    moto = pytest.importorskip("moto.server", reason="needs `moto[server]`, an S3 server for tests")
    patch = pytest.MonkeyPatch()
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "my-key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "my-secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3").mkdir("bucket")
    yield "s3://bucket"
    server.stop()
    patch.undo()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_s3(model, bucket, tmp_path):
    corpus, store = write_corpus(tmp_path / "corpus.txt"), fsspec.filesystem("s3")
    store.put_file(str(corpus), f"{bucket}/texts/corpus.txt")
    options = SMALL | {"format": "parquet"}
    elmo_hf.embed(corpus, tmp_path / "whole", model, **options)
    elmo_hf.embed(f"{bucket}/texts/*.txt", f"{bucket}/whole", model, **options)
    assert stored(store, f"{bucket}/whole") == contents(tmp_path / "whole")
    for name in ("vectors-00001.parquet", "index.json"):
        store.rm_file(f"{bucket}/whole/{name}")
    elmo_hf.embed(f"{bucket}/texts/*.txt", f"{bucket}/whole", model, **options)
    assert stored(store, f"{bucket}/whole") == contents(tmp_path / "whole")
    for number in (1, 2):
        output = f"{bucket}/shards/{number}"
        elmo_hf.embed(f"{bucket}/texts/corpus.txt", output, model, shard=f"{number}/2", **SMALL)
    whole = read_vectors(tmp_path / "whole")
    for sentence, expected in zip(read_vectors(f"{bucket}/shards"), whole, strict=True):
        assert sentence.words == expected.words
        np.testing.assert_allclose(sentence.vectors, expected.vectors, atol=2e-6)
    with pytest.raises(
        ElmoError, match=r"s3://nowhere/v/plan.json cannot be written: there is no such "
    ) as error:
        elmo_hf.embed(corpus, "s3://nowhere/v", model, **SMALL)
    assert "my-secret" not in str(error.value)
    with pytest.raises(ElmoError, match=r"there is no file s3://bucket/texts/none\.txt"):
        open_records(f"{bucket}/texts/none.txt")
