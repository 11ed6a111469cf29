"""How fast onnxruntime reads the exported file, beside torch, and how far its vectors are away.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.onnx                 # random weights of the "small" shape
    OMP_NUM_THREADS=1 python -m benchmarks.speed.onnx --model my-elmo # what eight bits do to a trained model
    python -m benchmarks.speed.onnx --table                           # the table of benchmarks/README.md

From ready character ids to the top layer, made-up sentences, in batches of 32 and one at a time. Contestants
take turns; a ratio is taken within a round, the median is told. One thread; times are of the processor.
"""

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.report import RESULTS, command, machine, write_json
from benchmarks.speed.workloads import SIZES, calls_of_round, made_up_sentences, number_of_words
from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.export.onnx import export_onnx

BASELINE = "torch-readable"

Batch = dict[str, torch.Tensor]
Reader = Callable[[Batch], np.ndarray]


def by_torch(model: ElmoModel, choice: str) -> Reader:
    model = copy.deepcopy(model)  # what a choice has laid out for itself stays with the model

    def read(batch: Batch) -> np.ndarray:
        kernels.use(choice)
        with torch.inference_mode():
            return model(**batch).last_hidden_state.numpy()

    return read


def by_file(path: Path) -> Reader:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name].numpy() for name in names})[0]


def measure(
    readers: dict[str, Reader], tokenizer: ElmoTokenizer, setting: str, rounds: int
) -> dict[str, dict[str, float]]:
    sentences = made_up_sentences(2000)
    seconds: dict[str, float] = {}
    speeds: list[dict[str, float]] = []
    for number in range(rounds + 1):  # the first does not count
        calls = calls_of_round(setting, sentences, number)
        batches = [
            dict(tokenizer(call, is_split_into_words=True, padding=True, return_tensors="pt"))
            for call in calls
        ]
        for name, read in readers.items():
            begun = time.process_time()
            for batch in batches:
                read(batch)
            seconds[name] = time.process_time() - begun
        speeds.append({name: number_of_words(calls) / one for name, one in seconds.items()})
    speeds = speeds[1:]
    return {
        name: {
            "words_per_second": statistics.median(one[name] for one in speeds),
            "ratio": statistics.median(one[name] / one[BASELINE] for one in speeds),
        }
        for name in readers
    }


def load(folder: str | None, size: str, place: Path) -> tuple[str, ElmoModel, ElmoTokenizer]:
    if folder is None:
        torch.manual_seed(0)
        folder = str(place / size)
        ElmoModel(ElmoConfig(**SIZES[size], vocab_size=3)).save_pretrained(folder)
        ElmoTokenizer().save_pretrained(folder)
    return folder, ElmoModel.from_pretrained(folder).eval(), ElmoTokenizer.from_pretrained(folder)


def table(content: dict[str, Any]) -> str:
    """Of the JSON that a run has written, as Markdown."""
    lines = [
        f"{content['machine']['cpu']}, 1 thread, {content['weights']} weights, onnxruntime "
        f"{content['onnxruntime']}, torch {content['torch']}: `{content['command']}`",
        "",
        f"| words/s (ratio to {BASELINE}) | batch of 32 | one at a time | MB | largest difference | rms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in content["settings"]["ready"]:
        found = [content["settings"][setting][name] for setting in ("ready", "single")]
        cells = [f"{one['words_per_second']:,.0f} ({one['ratio']:.2f})" for one in found]
        export = content["exports"].get(name)
        if export is not None:
            difference = export["differences"]["vector"]
            cells.append(f"{export['bytes'] / 1e6:.1f}")
            cells += [f"{difference['largest']:.1e}", f"{difference['rms']:.1e}"]
        lines.append("| " + " | ".join([name, *cells, *["–"] * (5 - len(cells))]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--model", help="a folder, in place of random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "export.json")
    parser.add_argument("--table", action="store_true", help="print the table of the output that is there")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.output.read_text(encoding="utf-8"))))
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        folder, model, tokenizer = load(options.model, options.size, place)
        exports = {
            name: asdict(export_onnx(folder, place / name, int8=name == "onnx-int8"))
            for name in ("onnx", "onnx-int8")
        }
        readers = {f"torch-{choice}": by_torch(model, choice) for choice in ("readable", "auto", "int8")}
        readers |= {name: by_file(place / name / "model.onnx") for name in exports}
        settings = {
            setting: measure(readers, tokenizer, setting, options.rounds) for setting in ("ready", "single")
        }
    content = {
        "command": command("speed.onnx", sys.argv[1:]),
        "machine": machine(),
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "weights": "trained" if options.model else "random",
        "rounds": options.rounds,
        "settings": settings,
        "exports": exports,
    }
    write_json(options.output, content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
