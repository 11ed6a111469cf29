"""What does a GPU make of it? The measurements that decide how ELMo is trained and read on one.

    python -m benchmarks.speed.gpu                                     # everything, original size
    python -m benchmarks.speed.gpu --only training graphs --quick      # two of them, few rounds
    python -m benchmarks.speed.gpu --only clips --weights FOLDER --sentences FILE
    python -m benchmarks.speed.gpu --device cpu --size tiny --quick --output FILE    # a trial

| name | what is measured |
|---|---|
| products | the layer's matrix products, there and back: microseconds and TFLOP/s |
| oracle | `nn.LSTM(proj_size=...)`, both directions of one layer, there and back; it has no such clips |
| training | a whole step: characters, LSTMs, sampled softmax, the way back, Adagrad |
| softmax | 8,192 samples against 65,536, there and back, and the exact loss of 20,000 words |
| graphs | a layer by CUDA graph, without one, and by its definition; and a whole model for few sentences |
| clips | how many of the h and c of a model's words stand at their clip |

Whatever is compared takes turns, round after round, and the median, least and greatest time are kept. Results
go to benchmarks/results/gpu/ as JSON, rewritten after each measurement. Numbers are made up unless there are
`--weights`, and words unless there are `--sentences`.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import RESULTS, machine, write_json
from benchmarks.speed.__main__ import spread
from benchmarks.speed.workloads import SIZES, cyclic, made_up_sentences, read_sentences
from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.kernels import graphs, training
from elmo_hf.model.modeling_elmo import lstm

VOCABULARY = {"original": 793_471, "small": 793_471, "tiny": 2_000}
BATCHES = (128, 384, 2048)  # one GPU of the original's three, all three, and many
FEW = (1, 8, 32)
STEPS, WORDS_OF_A_SENTENCE = 20, 22
SAMPLES = (8_192, 65_536)
EVALUATED, EVALUATED_AT_ONCE = 20_000, 1_024
WARM_UP = 3
PRODUCTS_AT_ONCE = 20  # one alone is over sooner than it is told


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(0)
    results: dict[str, Any] = {"facts": facts(options)}
    for name in options.only:
        print(f"\n{name}: {MEASUREMENTS[name].__doc__}", flush=True)
        results[name] = MEASUREMENTS[name](options)
        report(results[name])
        write_json(options.output, results)  # after each, as the next may not fit in memory
        if options.device == "cuda":
            torch.cuda.empty_cache()
    print(f"\nWritten: {options.output}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the script")
    parser.add_argument("--size", choices=SIZES, default="original", help=", ".join(SIZES))
    parser.add_argument("--rounds", type=int, help="measured rounds (20; 3 with --quick)")
    parser.add_argument("--weights", type=Path, help="a folder of `save_pretrained`, for clips")
    parser.add_argument("--sentences", type=Path, help="a file of words between spaces; else made-up words")
    parser.add_argument("--output", type=Path, help="a JSON file (results/gpu/SIZE.json)")
    parser.add_argument("--quick", action="store_true", help="the smallest batch only, and 3 rounds")
    options = parser.parse_args(arguments)
    check(options)
    options.rounds = options.rounds or (3 if options.quick else 20)
    options.output = options.output or RESULTS / "gpu" / f"{options.size}.json"
    return options


def check(options: argparse.Namespace) -> None:
    """Whatever would fail later on, said before anything is measured."""
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "gpu.py measures a GPU, but this PyTorch finds none; "
            "`--device cpu --size tiny --quick --output FILE` only tries the script."
        )
    if options.device == "cpu" and not options.output:
        sys.exit("A CPU's numbers do not belong among the results of GPUs; say --output FILE.")
    if options.rounds is not None and options.rounds < 1:
        sys.exit(f"--rounds must be at least 1, but is {options.rounds}.")
    if options.weights and not (options.weights / "config.json").is_file():
        sys.exit(f"--weights must be a folder with config.json, but {options.weights} has none.")
    if options.sentences and not options.sentences.is_file():
        sys.exit(f"--sentences must be a file of text, but {options.sentences} is none.")


def facts(options: argparse.Namespace) -> dict[str, Any]:
    found = {
        "date": date.today().isoformat(),
        "size": options.size,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda},
    }
    for library in ("torch", "triton", "transformers", "elmo_hf"):
        with suppress(PackageNotFoundError):
            found["versions"][library] = version(library)
    if options.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        found["gpu"] = {
            "name": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory_gb": round(gpu.total_memory / 2**30, 1),
            "processors": gpu.multi_processor_count,
        }
    return found


# ---- time


Calls = dict[str, Callable[[], object]]


def in_turns(calls: Calls, options: argparse.Namespace, times: int = 1) -> dict[str, dict[str, float]]:
    """Microseconds of each call: median, least and greatest of the rounds, in which each has a turn."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):
        for name, call in calls.items():
            found[name].append(microseconds(call, options.device, times))
    return {name: spread(values) for name, values in found.items()}


def microseconds(call: Callable[[], object], device: str, times: int) -> float:
    """By the wall's clock, from an idle GPU to an idle GPU: as the caller has to wait."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e6 / times


def batches_of(options: argparse.Namespace) -> tuple[int, ...]:
    return BATCHES[:1] if options.quick else BATCHES


def half(options: argparse.Namespace, dtype: torch.dtype) -> torch.dtype:
    """The type to measure in; a CPU takes float32."""
    return dtype if options.device == "cuda" else torch.float32


# ---- products


def measure_products(options: argparse.Namespace) -> list[dict[str, Any]]:
    """the layer's matrix products, of both directions at once"""
    cells, width = SIZES[options.size]["lstm_dim"], SIZES[options.size]["projection_dim"]
    found = []
    for batch in batches_of(options):
        words = batch * STEPS
        shapes = {  # rows, inner, columns
            "gates of a step": (batch, width, 4 * cells),
            "projection of a step": (batch, cells, width),
            "back through the gates": (batch, 4 * cells, width),
            "back through the projection": (batch, width, cells),
            "gates of all steps": (words, width, 4 * cells),
            "gradient of the gates' weight": (width, words, 4 * cells),
            "gradient of the projection": (cells, words, width),
        }
        for name, (rows, inner, columns) in shapes.items():
            call = product_call(options, rows, inner, columns)
            us = in_turns({name: call}, options, PRODUCTS_AT_ONCE)[name]
            tflops = round(2 * 2 * rows * inner * columns / us["median"] / 1e6, 3)
            shape = [2, rows, inner, columns]
            found.append({"batch": batch, "product": name, "shape": shape, "us": us, "tflops": tflops})
    return found


def product_call(options: argparse.Namespace, rows: int, inner: int, columns: int) -> Callable[[], object]:
    dtype = half(options, torch.bfloat16)
    x, weight, out = (
        torch.randn(2, *shape, device=options.device).to(dtype)
        for shape in ((rows, inner), (inner, columns), (rows, columns))
    )
    return lambda: torch.baddbmm(out, x, weight, beta=0.5, out=out)


# ---- the oracle


def measure_oracle(options: argparse.Namespace) -> list[dict[str, Any]]:
    """nn.LSTM(proj_size) there and back, a layer of both directions, without our clips"""
    cells, width = SIZES[options.size]["lstm_dim"], SIZES[options.size]["projection_dim"]
    dtype = half(options, torch.float16)
    layer = nn.LSTM(width, cells, proj_size=width, bidirectional=True).to(options.device, dtype)
    found = []
    for batch in batches_of(options):
        x = torch.randn(STEPS, batch, width, device=options.device).to(dtype).requires_grad_()

        def step(x: Tensor = x) -> None:
            layer(x)[0].sum().backward()

        us = in_turns({"oracle": step}, options)["oracle"]
        found.append({"batch": batch, "us": us, "words_per_second": rate(batch * STEPS, us)})
    return found


def rate(words: int, us: dict[str, float]) -> int:
    return round(words / us["median"] * 1e6)


# ---- a training step


def measure_training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """a whole step on segments of 20 words, bfloat16 products, float32 weights"""
    model = make_model(options).train()
    softmax = SampledSoftmax(options, SAMPLES[0])
    parameters = [*model.parameters(), *softmax.parameters()]
    optimizer = torch.optim.Adagrad(parameters, lr=0.2, initial_accumulator_value=1.0, foreach=True)
    found = []
    for batch in batches_of(options):
        char_ids, labels = segments(options, batch), softmax.labels(batch * STEPS)

        def step(choice: str, char_ids: Tensor = char_ids, labels: Tensor = labels) -> None:
            kernels.use(choice)
            optimizer.zero_grad()
            with torch.autocast(options.device, torch.bfloat16):
                vectors = model(char_ids=char_ids).last_hidden_state.flatten(0, 1)
                loss = sum(softmax(part, labels) for part in vectors.chunk(2, dim=-1))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()

        for choice in ("readable", "auto"):
            row = time_of_training(options, partial(step, choice), batch)
            found.append({"batch": batch, "kernels": choice, **row})
    kernels.use("auto")
    return found


def time_of_training(options: argparse.Namespace, step: Callable[[], None], batch: int) -> dict[str, Any]:
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        us = in_turns({"step": step}, options)["step"]
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    peak = torch.cuda.max_memory_allocated() // 2**20 if on_gpu else None
    return {"us": us, "words_per_second": rate(batch * STEPS, us), "peak_memory_mb": peak}


def make_model(options: argparse.Namespace) -> ElmoModel:
    return ElmoModel(ElmoConfig(**SIZES[options.size])).to(options.device)


def segments(options: argparse.Namespace, batch: int) -> Tensor:
    """(batch, 20, characters) of running text"""
    words = [word for sentence in sentences_of(options) for word in sentence]
    rows = [cyclic(words, row * STEPS, STEPS) for row in range(batch)]
    encoding = ElmoTokenizer()(rows, is_split_into_words=True, return_tensors="pt")
    return encoding["char_ids"].to(options.device)


def sentences_of(options: argparse.Namespace, number: int = 2_000) -> list[list[str]]:
    if options.sentences:
        return read_sentences(options.sentences, number)
    return made_up_sentences(50 if options.quick else number)


# ---- softmax


class SampledSoftmax(nn.Module):
    """The cross entropy among the true word and so many others, the same ones for all places; without the
    drawing of them. As many rows as a step can touch stand for the vocabulary, as the rest costs nothing."""

    def __init__(self, options: argparse.Namespace, samples: int) -> None:
        super().__init__()
        self.vocabulary, self.width = VOCABULARY[options.size], SIZES[options.size]["projection_dim"]
        self.samples, self.device = min(samples, self.vocabulary // 2), options.device
        rows = self.samples + max(BATCHES) * STEPS
        self.table = nn.Parameter(torch.randn(rows, self.width, device=options.device) * 0.01)
        self.bias = nn.Parameter(torch.zeros(rows, device=options.device))

    def labels(self, words: int) -> Tensor:
        """Rows of the table that are no samples, with repetitions as in text."""
        drawn = torch.rand(words, device=self.device).pow(3).mul(words).long()
        return drawn + self.samples

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """(words, width) and (words,) -> the mean loss"""
        samples = F.linear(vectors, self.table[: self.samples], self.bias[: self.samples])
        true = (vectors * self.table[labels]).sum(dim=-1, keepdim=True) + self.bias[labels, None]
        logits = torch.cat([true, samples], dim=1).float()
        return F.cross_entropy(logits, labels.new_zeros(len(labels)))


def measure_softmax(options: argparse.Namespace) -> list[dict[str, Any]]:
    """the loss of one direction by few samples, by many, and by all words"""
    words = BATCHES[0 if options.quick else 1] * STEPS
    found = []
    for samples in SAMPLES:
        softmax = SampledSoftmax(options, samples)
        labels = softmax.labels(words)
        vectors = torch.randn(words, softmax.width, device=options.device, requires_grad=True)

        def step(
            softmax: SampledSoftmax = softmax, vectors: Tensor = vectors, labels: Tensor = labels
        ) -> None:
            with torch.autocast(options.device, torch.bfloat16):
                loss = softmax(vectors, labels)
            loss.backward()

        us = in_turns({"step": step}, options)["step"]
        found.append({"samples": softmax.samples, **per_word(us, words)})
    return [*found, exact_softmax(options)]


@torch.no_grad()
def exact_softmax(options: argparse.Namespace) -> dict[str, Any]:
    """20,000 words against the whole vocabulary, a thousand at a time"""
    dtype, vocabulary = half(options, torch.bfloat16), VOCABULARY[options.size]
    words = EVALUATED // 20 if options.quick else EVALUATED
    width = SIZES[options.size]["projection_dim"]
    table, vectors = (torch.randn(n, width, device=options.device).to(dtype) for n in (vocabulary, words))
    labels = torch.randint(vocabulary, (words,), device=options.device)

    def evaluate() -> None:
        total = torch.zeros((), device=options.device)
        for some, true in zip(vectors.split(EVALUATED_AT_ONCE), labels.split(EVALUATED_AT_ONCE), strict=True):
            total += F.cross_entropy((some @ table.T).float(), true, reduction="sum")

    us = in_turns({"exact": evaluate}, options)["exact"]
    return {"samples": "all", **per_word(us, words)}


def per_word(us: dict[str, float], words: int) -> dict[str, Any]:
    return {"words": words, "us": us, "us_per_word": round(us["median"] / words, 4)}


# ---- graphs


@torch.no_grad()
def measure_graphs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """a layer for few sentences of 22 words, by its graph and without; and a whole model"""
    model = make_model(options).eval().to(half(options, torch.float16))
    found = []
    for batch in FEW:
        times = in_turns(layer_calls(options, model, batch), options)
        found.append({"batch": batch, "what": "a layer", "us": times})
        found.append({"batch": batch, "what": "a model", "us": in_turns(model_calls(model, batch), options)})
        found[-1]["why_not"] = kernels.why_not()
    return found


def layer_calls(options: argparse.Namespace, model: ElmoModel, batch: int) -> Calls:
    layer: Any = model.layers[0]
    weights = (layer.input_weight, layer.recurrent_weight, layer.bias, layer.projection)
    x, h, c = (
        torch.randn(2, batch, *shape, device=options.device).to(layer.bias.dtype)
        for shape in (
            (WORDS_OF_A_SENTENCE, model.config.projection_dim),
            (model.config.output_dim,),
            (model.config.lstm_dim,),
        )
    )
    mask = torch.ones(2, batch, WORDS_OF_A_SENTENCE, dtype=torch.bool, device=options.device)
    arguments = (x, mask, h, c, *weights, model.config.cell_clip, model.config.proj_clip)
    calls: Calls = {"readable": lambda: lstm(*arguments), "eager": lambda: training.lstm(*arguments)}
    if graphs.serves(x, *weights) and has_graph(*arguments):
        calls["graph"] = lambda: graphs.lstm(*arguments)
    return calls


def has_graph(*arguments: Any) -> bool:
    """A size's first call only makes it known, and at the second its graph is made."""
    for _ in range(2):
        try:
            graphs.lstm(*arguments)
        except graphs.NoGraph as reason:
            obstacle = reason
        else:
            return True
    print(f"  no graph: {obstacle}")
    return False


def model_calls(model: ElmoModel, batch: int) -> Calls:
    """From characters to layers, as a user calls it; the last choice is the one that is left behind."""
    [*_, sentence] = sorted(made_up_sentences(200), key=len)
    rows = [sentence[: WORDS_OF_A_SENTENCE - 2]] * batch
    encoding = ElmoTokenizer()(rows, is_split_into_words=True, return_tensors="pt").to(model.device)

    def call(choice: str) -> None:
        kernels.use(choice)
        model(**encoding)

    return {choice: partial(call, choice) for choice in ("readable", "auto")}


# ---- clips


@torch.no_grad()
def measure_clips(options: argparse.Namespace) -> dict[str, Any]:
    """how much of h and c stands at its clip"""
    if not options.weights:
        return {"skipped": "made-up weights say nothing; --weights FOLDER gives trained ones"}
    model = ElmoModel.from_pretrained(options.weights).to(options.device).eval()
    counts = [{"h": 0, "c": 0, "words": 0} for _ in model.layers]
    for layer, count in zip(model.layers, counts, strict=True):
        layer.register_forward_pre_hook(partial(count_clipped, count))
    tokenizer = ElmoTokenizer(max_characters_per_token=model.config.max_characters_per_token)
    sentences = sentences_of(options)
    for start in range(0, len(sentences), FEW[-1]):
        rows = sentences[start : start + FEW[-1]]
        encoding = tokenizer(rows, is_split_into_words=True, padding=True, return_tensors="pt")
        model(**encoding.to(options.device), keep_boundaries=True)  # sentence begins and ends are read, too
    return {"sentences": len(sentences), "layers": [shares(model.config, count) for count in counts]}


def count_clipped(count: dict[str, int], layer: Any, inputs: tuple[Tensor, ...]) -> None:
    """Reads the layer's input a step at a time, as only then all cells are seen."""
    x, mask, h, c = inputs
    weights = (layer.input_weight, layer.recurrent_weight, layer.bias, layer.projection)
    limits = (layer.config.cell_clip, layer.config.proj_clip)
    for step in range(x.shape[2]):
        now = slice(step, step + 1)
        _, h, c = lstm(x[:, :, now], mask[:, :, now], h, c, *weights, *limits)
        is_word = mask[:, :, step, None]
        for name, state, limit in (("c", c, limits[0]), ("h", h, limits[1])):
            if limit is not None:
                count[name] += int(((state.abs() >= limit) & is_word).sum())
        count["words"] += int(is_word.sum())


def shares(config: ElmoConfig, count: dict[str, int]) -> dict[str, float]:
    words = max(count["words"], 1)
    return {
        "words": count["words"],  # of both directions
        "share_of_h": count["h"] / (words * config.output_dim),
        "share_of_c": count["c"] / (words * config.lstm_dim),
    }


# ---- what comes out


def report(found: Any) -> None:
    for row in found if isinstance(found, list) else [found]:
        print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "products": measure_products,
    "oracle": measure_oracle,
    "training": measure_training,
    "softmax": measure_softmax,
    "graphs": measure_graphs,
    "clips": measure_clips,
}

if __name__ == "__main__":
    main()
