"""How fast onnxruntime reads the exported file, compared with torch, and how far its vectors differ.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.onnx                 # random weights of the "small" size
    OMP_NUM_THREADS=1 python -m benchmarks.speed.onnx --model my-elmo # what int8 changes in a trained model
    python -m benchmarks.speed.table                                  # the tables of benchmarks/README.md

From ready character ids to the top layer, on made-up sentences, in batches of 32 and one at a time, in turns.
A ratio is taken within a round; the result is the median. One thread, seconds of the processor.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.report import RESULTS, command, in_turns, machine
from benchmarks.speed.weights import write_random_model
from benchmarks.speed.workloads import SIZES, calls_of_round, made_up_sentences, number_of_words
from elmo_hf import ElmoModel, ElmoTokenizer, kernels
from elmo_hf.export.onnx import export_onnx
from elmo_hf.files import write_json

BASELINE = "torch-readable"

Reader = Callable[[dict[str, torch.Tensor]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--model", help="a folder, in place of random weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS / "export.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        readers, tokenizer, exports = make_readers(options, Path(temporary))
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


def make_readers(
    options: argparse.Namespace, temporary: Path
) -> tuple[dict[str, Reader], ElmoTokenizer, dict[str, Any]]:
    """The contestants, and what the export reports of each file."""
    folder = options.model or write_random_model(options.size, temporary / options.size)
    model, tokenizer = ElmoModel.from_pretrained(folder).eval(), ElmoTokenizer.from_pretrained(folder)
    exports = {
        name: asdict(export_onnx(folder, temporary / name, int8=name == "onnx-int8"))
        for name in ("onnx", "onnx-int8")
    }
    readers = {f"torch-{kernel}": torch_reader(model, kernel) for kernel in ("readable", "auto", "int8")}
    readers |= {name: onnx_reader(temporary / name / "model.onnx") for name in exports}
    return readers, tokenizer, exports


def torch_reader(model: ElmoModel, kernel: str) -> Reader:
    model = copy.deepcopy(model)  # a kernel keeps packed weights in the model

    def read(batch: dict[str, torch.Tensor]) -> np.ndarray:
        kernels.use(kernel)
        with torch.inference_mode():
            return model(**batch).last_hidden_state.numpy()

    return read


def onnx_reader(path: Path) -> Reader:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name].numpy() for name in names})[0]


def measure(
    readers: dict[str, Reader], tokenizer: ElmoTokenizer, setting: str, rounds: int
) -> dict[str, dict[str, float]]:
    sentences = made_up_sentences(2000)

    def words_per_second(read: Reader, number: int) -> float:
        calls = calls_of_round(setting, sentences, number)
        batches = [
            dict(tokenizer(call, is_split_into_words=True, padding=True, return_tensors="pt"))
            for call in calls
        ]
        start = time.process_time()
        for batch in batches:
            read(batch)
        return number_of_words(calls) / (time.process_time() - start)

    speeds = in_turns({name: partial(words_per_second, read) for name, read in readers.items()}, rounds)
    return {
        name: {
            "words_per_second": statistics.median(own),
            "ratio": statistics.median(a / b for a, b in zip(own, speeds[BASELINE], strict=True)),
        }
        for name, own in speeds.items()
    }


if __name__ == "__main__":
    main()
