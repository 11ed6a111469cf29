"""Good inputs of all doors, small, and the files outside that nothing may read."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from elmo_hf import ElmoConfig, ElmoForPreTraining, ElmoTokenizer
from tests.fuzz.packed import PACKERS
from tests.fuzz.watch import MARKED_NUMBER, MARKER
from tests.helpers import card_folders, reference, tensor_bundles
from tests.helpers.bilm_files import VOCABULARY, write_source

WORDS = ["<S>", "</S>", "<UNK>", "He", "sat", "on", "the", "bank", "."]
SIZES = {"lstm_dim": 8, "projection_dim": 4, "vocab_size": len(WORDS), "char_embedding_dim": 4}
SIZES |= {"char_filters": [[1, 2], [2, 3]], "num_highway_layers": 1, "max_characters_per_token": 12}
LINES = ["He sat on the bank .", "The bank lent him money .", "", "日本語 naïve 1,000.50 didn't", "Why ?"]
MODEL_FILES = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]


def save_model(folder: Path, **options: object) -> None:
    torch.manual_seed(0)
    ElmoForPreTraining(ElmoConfig(**SIZES)).save_pretrained(folder, **options)
    write_words(folder / "vocab.txt")
    ElmoTokenizer(folder / "vocab.txt", SIZES["max_characters_per_token"]).save_pretrained(folder)


def write_words(path: Path) -> None:
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    counts = "".join(f"{word}\t{20 - number}\n" for number, word in enumerate(WORDS))
    path.with_suffix(".counts.tsv").write_text(counts, encoding="utf-8")


def save_sharded(folder: Path) -> None:
    save_model(folder, max_shard_size=1000)
    assert (folder / "model.safetensors.index.json").exists()


def write_bilm(folder: Path) -> None:
    """Published files, of characters and of word vectors, both with a softmax."""
    write_source(folder / "characters", reference.options(n_layers=1), softmax=True)
    write_source(folder / "words", {"lstm": reference.options(n_layers=1)["lstm"]}, softmax=True)


def write_training(folder: Path) -> None:
    """A training folder of bilm-tf with two checkpoints."""
    options = reference.options(n_layers=1)
    tensor_bundles.write_training_folder(folder / "training", options, vocab_size=len(VOCABULARY))
    tensor_bundles.write_bundle(
        folder / "training" / "model.ckpt-9", {"lm/char_embed": np.zeros((261, 4), "f4")}
    )
    (folder / "training" / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def write_modules(folder: Path) -> None:
    """A TF-Hub module, and the annotator of Spark NLP with the same variables."""
    tensor_bundles.write_module(folder / "module", reference.options(n_layers=1))
    (folder / "annotator").mkdir()
    with zipfile.ZipFile(folder / "annotator" / "elmo_tensorflow", "w") as archive:
        for path in sorted((folder / "module" / "variables").iterdir()):
            archive.write(path, path.name)


def write_card(folder: Path) -> None:
    config = ElmoConfig(**SIZES, architectures=["ElmoForPreTraining"])
    model = {"config": config.to_dict(), "parameters": 1234, "softmax_parameters": 81}
    run = card_folders.RUN | {"model": json.loads(json.dumps(model))}
    sums = {"weights.hdf5": {"bytes": 5, "sha256": "ab" * 32}}
    more = {"run": run, "source": {"files": sums}}
    more["evaluation"] = {"command": "x", "schema": 1, "results": [EVALUATION, TABLE]}
    card_folders.write(folder, results=card_folders.RESULTS | more)


EVALUATION = {
    "kind": "evaluation",
    "rows": [{"dataset": "conll", "metric": "F1", "value": 92.5, "split": "test"}],
}
TABLE = {
    "kind": "table",
    "title": "Shapes",
    "note": "A note.",
    "rows": [{"size": 5, "words a second": 1.5, "ok": True}],
}


def write_corpora(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    text = "\n".join(LINES * 3) + "\n"
    (folder / "text.txt").write_text(text, encoding="utf-8")
    rows = [{"text": line, "number": number} for number, line in enumerate(LINES)]
    words = [{"tokens": line.split()} for line in LINES]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words), encoding="utf-8")
    (folder / "array.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    (folder / "rows.csv").write_text(
        "text,number\n" + "".join(f'"{line}",1\n' for line in LINES), encoding="utf-8"
    )
    (folder / "rows.tsv").write_text(
        "text\tnumber\n" + "".join(f"{line}\t1\n" for line in LINES), encoding="utf-8"
    )
    pyarrow.parquet.write_table(pa.table({"text": LINES}), folder / "rows.parquet")
    pyarrow.parquet.write_table(
        pa.table({"tokens": [line.split() for line in LINES]}), folder / "words.parquet"
    )
    for suffix, pack in PACKERS.items():
        (folder / f"text.txt{suffix}").write_bytes(pack(text.encode()))
        (folder / f"rows.jsonl{suffix}").write_bytes(pack((folder / "rows.jsonl").read_bytes()))


# ---- data of tasks

CONLLU = "# text = He sat.\n1\tHe\the\tPRON\tPRP\t_\t2\tnsubj\t_\t_\n"
CONLLU += "2\tsat\tsit\tVERB\tVBD\t_\t0\troot\t_\t_\n\n"
NER = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nPeter NNP B-NP B-PER\nsat VBD B-VP O\n. . O O\n\n"
SRL = "0 0 He PRP - - he - (ARG0*)\n0 1 sat VBD - - sit sit.01 (V*)\n0 2 down RP - - down - (AM*\n"
SRL += "0 3 . . - - . - *)\n\n"
SST = "(3 (2 It) (4 (2 's) (4 good)))\n(1 (2 No) (1 way))\n"
NLI = "gold_label\tsentence1\tsentence2\nentailment\tHe sat .\tHe rests .\nneutral\tIce .\tA bank .\n"
CONLL = "#begin document (a); part 000\na 0 0 He PRP - - - - (0)\na 0 1 saw VBD - - - - -\n"
CONLL += "a 0 2 himself PRP - - - - (0)\n\na 0 0 A DT - - - - (1\na 0 1 bank NN - - - - 1)\n\n#end document\n"
GAP = (
    "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL\n"
    "test-1\tAnn met Beth . She sat .\tShe\t15\tAnn\t0\tTRUE\tBeth\t8\tFALSE\thttp://x\n"
)
QUESTION = {"id": "1", "question": "Who sat?", "answers": [{"text": "He", "answer_start": 0}]}
SQUAD = {"data": [{"title": "x", "paragraphs": [{"context": "He sat on the bank.", "qas": [QUESTION]}]}]}
VECTORS = "9 4\n" + "".join(f"{word} 0.5 -1 2e-3 1\n" for word in WORDS)
TASK_FILES = {
    "pos.conllu": CONLLU,
    "ner.txt": NER,
    "srl.conll": SRL,
    "sst.txt": SST,
    "nli.tsv": NLI,
    "coref.conll": CONLL,
}
TASK_FILES |= {"gap.tsv": GAP, "squad.json": json.dumps(SQUAD), "vectors.txt": VECTORS}


def write_task_data(folder: Path) -> None:
    for name, text in TASK_FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "coref.tar.gz").write_bytes(gzip.compress(tar_of(folder / "coref.conll")))


def tar_of(path: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(path, f"coref/{path.name}")
    return file.getvalue()


# ---- outside


def write_secrets(folder: Path) -> None:
    """Files of every kind, each as whole as one inside, so that a door that reads it does not notice."""
    save_sharded(folder)
    marked = {}
    for shard in folder.glob("*.safetensors"):
        marked |= {name: torch.full_like(tensor, MARKED_NUMBER) for name, tensor in load_file(shard).items()}
        shard.unlink()
    save_file(marked, folder / "secret.safetensors", metadata={"format": "pt"})
    torch.save(marked, folder / "secret.bin")
    for path in folder.glob("*.json"):
        path.unlink()
    words = [*WORDS[:3], *(f"{MARKER}-{number}" for number in range(len(WORDS) - 3))]
    (folder / "secret.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "secret.json").write_text(json.dumps({"text": MARKER, "command": MARKER}), encoding="utf-8")
    (folder / "secret.yaml").write_text(f"title: {MARKER}\n", encoding="utf-8")
    (folder / "secret.py").write_text(f"{MARKER.replace('-', '_')} = 1\n", encoding="utf-8")
    (folder / "secret.jsonl").write_text(json.dumps({"text": MARKER}) + "\n", encoding="utf-8")
    (folder / "vocab.txt").unlink()
    (folder / "vocab.counts.tsv").unlink()
    variables = tensor_bundles.training_variables(reference.options(n_layers=1), vocab_size=len(VOCABULARY))
    secret = {name: np.full_like(array, MARKED_NUMBER, "f4") for name, array in variables.items()}
    tensor_bundles.write_bundle(folder / "model.ckpt-9", secret)
    with h5py.File(folder / "secret.hdf5", "w") as file:
        for name, array in hdf5_arrays().items():
            file[name] = np.full_like(array, MARKED_NUMBER)


def hdf5_arrays() -> dict[str, np.ndarray]:
    options = reference.options(n_layers=1)
    weights = reference.random_weights(options, 0)
    return weights | reference.random_weights({"lstm": options["lstm"]}, 0, vocab_size=len(VOCABULARY))
