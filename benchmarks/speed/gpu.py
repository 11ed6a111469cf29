"""How fast is it on a GPU? The measurements that decide how ELMo is trained and read on one.

    python -m benchmarks.speed.gpu                                     # everything, original size
    python -m benchmarks.speed.gpu --only training graphs --quick --output FILE      # two of them, few rounds
    python -m benchmarks.speed.gpu --device cpu --size tiny --quick --output FILE    # only tries the module

| name | what is measured |
|---|---|
| products | the layer's matrix products, forward and backward: microseconds and TFLOP/s |
| oracle | `nn.LSTM(proj_size=...)`, both directions of one layer, forward and backward; it has no clips |
| training | a whole step: characters, LSTMs, sampled softmax, backward, Adagrad |
| softmax | 8,192 and 65,536 samples, forward and backward, and the exact loss of 20,000 words |
| graphs | a layer with a CUDA graph, without one, and by its definition; a whole model for few sentences |
| updates | the update of pretraining as one CUDA graph, and without one |
| pretraining | a run from a text file to updates: words/s, and the share spent waiting for text |
| embed | `elmo-hf embed` from a text file to vectors on the disk: the same |

Compared calls take turns, and the median, minimum and maximum time over the rounds are kept. Results go to
benchmarks/results/gpu/ as JSON, rewritten after each measurement. Weights are random, and words are made up
unless there are `--sentences`.
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import RESULTS, in_turns, machine, spread, versions
from benchmarks.speed import gpu_runs
from benchmarks.speed.workloads import SIZES, cyclic, made_up_sentences, read_sentences
from elmo_hf import ElmoConfig, ElmoModel, ElmoTokenizer, kernels
from elmo_hf.files import write_json
from elmo_hf.kernels import graphs, training
from elmo_hf.model.modeling_elmo import lstm

VOCABULARY = {"original": 793_471, "small": 793_471, "tiny": 2_000}
BATCHES = (128, 384, 2048)  # of one GPU of the original's three, of all three, and a large one
FEW = (1, 8, 32)
STEPS, WORDS_OF_A_SENTENCE = 20, 22
SAMPLES = (8_192, 65_536)
EVALUATED, EVALUATED_CHUNK = 20_000, 1_024
WARM_UP = 3
PRODUCTS_PER_CALL = 20  # a single product takes less time than its launch


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(0)
    results: dict[str, Any] = {"facts": describe_run(options)}
    for name in options.only:
        print(f"\n{name}: {MEASUREMENTS[name].__doc__}", flush=True)
        results[name] = MEASUREMENTS[name](options)
        print_rows(results[name])
        write_json(options.output, results)  # after each, as the next may not fit in memory
        if options.device == "cuda":
            torch.cuda.empty_cache()
    print(f"\nWritten: {options.output}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the module (cuda)"
    )
    parser.add_argument("--size", choices=SIZES, default="original", help=", ".join(SIZES))
    parser.add_argument("--rounds", type=int, help="measured rounds (20; 3 with --quick)")
    parser.add_argument("--sentences", type=Path, help="a file of tokenized text (made-up words)")
    parser.add_argument("--output", type=Path, help="a JSON file (results/gpu/SIZE.json)")
    parser.add_argument("--quick", action="store_true", help="the smallest batch only, and 3 rounds")
    options = parser.parse_args(arguments)
    check(options)
    options.rounds = options.rounds or (3 if options.quick else 20)
    options.output = options.output or RESULTS / "gpu" / f"{options.size}.json"
    return options


def check(options: argparse.Namespace) -> None:
    """Refuse what would fail later, before anything is measured."""
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "this benchmark measures a GPU, but PyTorch finds none; "
            "`--device cpu --size tiny --quick --output FILE` only tries the module."
        )
    is_part = options.quick or {*options.only} != {*MEASUREMENTS}
    if is_part and not options.output:
        sys.exit("for a part of the measurements name a file with --output FILE; results/gpu has all.")
    if options.device == "cpu" and not options.output:
        sys.exit("with --device cpu name a file with --output FILE; the results folder is for GPUs.")
    if options.rounds is not None and options.rounds < 1:
        sys.exit(f"--rounds must be at least 1, but is {options.rounds}.")
    if options.sentences and not options.sentences.is_file():
        sys.exit(f"--sentences must be a file of text, but {options.sentences} is not a file.")


def describe_run(options: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "size": options.size,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": {"cuda": torch.version.cuda, **versions("torch", "triton", "transformers", "elmo_hf")},
    }
    if options.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        facts["gpu"] = {
            "name": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory_gb": round(gpu.total_memory / 2**30, 1),
            "processors": gpu.multi_processor_count,
        }
    return facts


# ---- time


def microseconds(
    calls: dict[str, Callable[[], object]], options: argparse.Namespace, repeats: int = 1
) -> dict[str, dict[str, float]]:
    """Of each call the median, minimum and maximum over the rounds, in which they take turns."""
    timed = {name: partial(time_call, call, options.device, repeats) for name, call in calls.items()}
    return {name: spread(times) for name, times in in_turns(timed, options.rounds, WARM_UP).items()}


def time_call(call: Callable[[], object], device: str, repeats: int, _round: int) -> float:
    """Microseconds of the wall clock from an idle GPU to an idle GPU: as long as the caller waits."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (time.perf_counter() - start) * 1e6 / repeats


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def batches_of(options: argparse.Namespace) -> tuple[int, ...]:
    return BATCHES[:1] if options.quick else BATCHES


def half(options: argparse.Namespace, dtype: torch.dtype) -> torch.dtype:
    """The type to measure in; a CPU takes float32."""
    return dtype if options.device == "cuda" else torch.float32


# ---- products


def measure_products(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The layer's matrix products, for both directions at once."""
    cells, width = SIZES[options.size]["lstm_dim"], SIZES[options.size]["projection_dim"]
    rows = []
    for batch in batches_of(options):
        words = batch * STEPS
        shapes = {  # (m, k) x (k, n)
            "gates of a step": (batch, width, 4 * cells),
            "projection of a step": (batch, cells, width),
            "back through the gates": (batch, 4 * cells, width),
            "back through the projection": (batch, width, cells),
            "gates of all steps": (words, width, 4 * cells),
            "gradient of the gates' weight": (width, words, 4 * cells),
            "gradient of the projection": (cells, words, width),
        }
        for name, (m, k, n) in shapes.items():
            call = product_call(options, m, k, n)
            us = microseconds({name: call}, options, PRODUCTS_PER_CALL)[name]
            tflops = round(2 * 2 * m * k * n / us["median"] / 1e6, 3)
            row = {"batch": batch, "product": name, "shape": [2, m, k, n], "us": us, "tflops": tflops}
            rows.append(row)
    return rows


def product_call(options: argparse.Namespace, m: int, k: int, n: int) -> Callable[[], object]:
    dtype = half(options, torch.bfloat16)
    x, weight, out = (
        torch.randn(2, *shape, device=options.device).to(dtype) for shape in ((m, k), (k, n), (m, n))
    )
    return lambda: torch.baddbmm(out, x, weight, beta=0.5, out=out)


# ---- torch's LSTM


def measure_oracle(options: argparse.Namespace) -> list[dict[str, Any]]:
    """nn.LSTM(proj_size) and our layer, forward and backward in both directions; the former has no clips."""
    rows = []
    for dtype in dict.fromkeys((half(options, torch.float16), half(options, torch.bfloat16))):
        for batch in batches_of(options):
            us = microseconds(oracle_calls(options, dtype, batch), options)
            words_per_second = {name: rate(batch * STEPS, spread) for name, spread in us.items()}
            rows.append({"batch": batch, "dtype": str(dtype), "us": us, "words_per_second": words_per_second})
    return rows


def oracle_calls(
    options: argparse.Namespace, dtype: torch.dtype, batch: int
) -> dict[str, Callable[[], object]]:
    cells, width = SIZES[options.size]["lstm_dim"], SIZES[options.size]["projection_dim"]
    layer = nn.LSTM(width, cells, proj_size=width, bidirectional=True).to(options.device, dtype)
    x = torch.randn(STEPS, batch, width, device=options.device).to(dtype).requires_grad_()
    shapes = [(2, width, 4 * cells), (2, width, 4 * cells), (2, 4 * cells), (2, cells, width)]
    w, u, b, p = [
        (0.02 * torch.randn(shape, device=options.device)).to(dtype).requires_grad_() for shape in shapes
    ]
    both = torch.randn(2, batch, STEPS, width, device=options.device).to(dtype).requires_grad_()
    mask = torch.ones(2, batch, STEPS, dtype=torch.bool, device=options.device)
    h, c = (torch.zeros(2, batch, size, device=options.device, dtype=dtype) for size in (width, cells))
    return {
        "oracle": lambda: layer(x)[0].sum().backward(),
        "ours": lambda: training.lstm(both, mask, h, c, w, u, b, p, 3.0, 3.0)[0].sum().backward(),
    }


def rate(words: int, us: dict[str, float]) -> int:
    return round(words / us["median"] * 1e6)


# ---- a training step


def measure_training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A whole step on segments of 20 words, bfloat16 products, float32 weights."""
    model = make_model(options).train()
    softmax = SampledSoftmax(options, SAMPLES[0])
    parameters = [*model.parameters(), *softmax.parameters()]
    optimizer = torch.optim.Adagrad(parameters, lr=0.2, initial_accumulator_value=1.0, foreach=True)
    rows = []
    for batch in batches_of(options):
        char_ids, labels = segments(options, batch), softmax.labels(batch * STEPS)

        def step(kernel: str, char_ids: Tensor = char_ids, labels: Tensor = labels) -> None:
            kernels.use(kernel)
            optimizer.zero_grad()
            with torch.autocast(options.device, torch.bfloat16):
                vectors = model(char_ids=char_ids).last_hidden_state.flatten(0, 1)
                loss = sum(softmax(direction, labels) for direction in vectors.chunk(2, dim=-1))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()

        for kernel in ("readable", "auto"):
            row = time_of_training(options, partial(step, kernel), batch)
            rows.append({"batch": batch, "kernels": kernel, **row})
    kernels.use("auto")
    return rows


def time_of_training(options: argparse.Namespace, step: Callable[[], None], batch: int) -> dict[str, Any]:
    on_gpu = options.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        us = microseconds({"step": step}, options)["step"]
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    peak = torch.cuda.max_memory_allocated() // 2**20 if on_gpu else None
    return {"us": us, "words_per_second": rate(batch * STEPS, us), "peak_memory_mb": peak}


def make_model(options: argparse.Namespace) -> ElmoModel:
    return ElmoModel(ElmoConfig(**SIZES[options.size])).to(options.device)


def segments(options: argparse.Namespace, batch: int) -> Tensor:
    """Character ids of running text, (batch, 20, characters)."""
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
    """The cross entropy over the true word and the samples, which all positions share; drawing is left out.
    The table has only as many rows as a step can touch, since other rows of the vocabulary cost nothing."""

    def __init__(self, options: argparse.Namespace, samples: int) -> None:
        super().__init__()
        self.vocabulary, self.width = VOCABULARY[options.size], SIZES[options.size]["projection_dim"]
        self.samples, self.device = min(samples, self.vocabulary // 2), options.device
        rows = self.samples + max(BATCHES) * STEPS
        self.table = nn.Parameter(torch.randn(rows, self.width, device=options.device) * 0.01)
        self.bias = nn.Parameter(torch.zeros(rows, device=options.device))

    def labels(self, words: int) -> Tensor:
        """Rows of the table that are not samples, with repetitions as in text."""
        drawn = torch.rand(words, device=self.device).pow(3).mul(words).long()
        return drawn + self.samples

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """(words, width) and (words,) -> the mean loss."""
        samples = F.linear(vectors, self.table[: self.samples], self.bias[: self.samples])
        true = (vectors * self.table[labels]).sum(dim=-1, keepdim=True) + self.bias[labels, None]
        logits = torch.cat([true, samples], dim=1).float()
        return F.cross_entropy(logits, labels.new_zeros(len(labels)))


def measure_softmax(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The loss of one direction with few samples, many samples, and the whole vocabulary."""
    words = BATCHES[0 if options.quick else 1] * STEPS
    rows = []
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

        us = microseconds({"step": step}, options)["step"]
        rows.append({"samples": softmax.samples, **per_word(us, words)})
    return [*rows, exact_softmax(options)]


@torch.no_grad()
def exact_softmax(options: argparse.Namespace) -> dict[str, Any]:
    """20,000 words against the whole vocabulary, about a thousand at a time."""
    dtype, vocabulary = half(options, torch.bfloat16), VOCABULARY[options.size]
    words = EVALUATED // 20 if options.quick else EVALUATED
    width = SIZES[options.size]["projection_dim"]
    table, vectors = (torch.randn(n, width, device=options.device).to(dtype) for n in (vocabulary, words))
    labels = torch.randint(vocabulary, (words,), device=options.device)

    def evaluate() -> None:
        total = torch.zeros((), device=options.device)
        for chunk, true in zip(vectors.split(EVALUATED_CHUNK), labels.split(EVALUATED_CHUNK), strict=True):
            total += F.cross_entropy((chunk @ table.T).float(), true, reduction="sum")

    us = microseconds({"exact": evaluate}, options)["exact"]
    return {"samples": "all", **per_word(us, words)}


def per_word(us: dict[str, float], words: int) -> dict[str, Any]:
    return {"words": words, "us": us, "us_per_word": round(us["median"] / words, 4)}


# ---- graphs


@torch.no_grad()
def measure_graphs(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A layer for few sentences of 22 words with and without a CUDA graph; and a whole model."""
    model = make_model(options).eval().to(half(options, torch.float16))
    rows = []
    for batch in FEW:
        of_layer = microseconds(layer_calls(options, model, batch), options)
        rows.append({"batch": batch, "what": "a layer", "us": of_layer})
        of_model = microseconds(model_calls(model, batch), options)
        rows.append({"batch": batch, "what": "a model", "us": of_model, "why_not": kernels.why_not()})
    return rows


def layer_calls(options: argparse.Namespace, model: ElmoModel, batch: int) -> dict[str, Callable[[], object]]:
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
    calls: dict[str, Callable[[], object]] = {
        "readable": lambda: lstm(*arguments),
        "eager": lambda: training.lstm(*arguments),
    }
    if graphs.serves(x, *weights) and has_graph(*arguments):
        calls["graph"] = lambda: graphs.lstm(*arguments)
    return calls


def has_graph(*arguments: Any) -> bool:
    """The first call of a size registers it, and the second captures its graph."""
    for _ in range(2):
        try:
            graphs.lstm(*arguments)
        except graphs.NoGraph as error:
            reason = error
        else:
            return True
    print(f"  no graph: {reason}")
    return False


def model_calls(model: ElmoModel, batch: int) -> dict[str, Callable[[], object]]:
    """From characters to layers, as a user calls it."""
    [*_, sentence] = sorted(made_up_sentences(200), key=len)
    rows = [sentence[: WORDS_OF_A_SENTENCE - 2]] * batch
    encoding = ElmoTokenizer()(rows, is_split_into_words=True, return_tensors="pt").to(model.device)

    def call(kernel: str) -> None:
        kernels.use(kernel)
        model(**encoding)

    return {kernel: partial(call, kernel) for kernel in ("readable", "auto")}


# ---- whole runs


def measure_updates(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The update of pretraining by one graph and without one, in bfloat16, its text looked up beforehand."""
    return gpu_runs.measure_updates(options, partial(microseconds, options=options))


def measure_pretraining(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A run from a text file to updates."""
    return gpu_runs.measure_pretraining(options)


def measure_embed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """`elmo-hf embed` from a text file to vectors on the disk."""
    return gpu_runs.measure_embed(options)


# ---- results


def print_rows(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print("  " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "products": measure_products,
    "oracle": measure_oracle,
    "training": measure_training,
    "softmax": measure_softmax,
    "graphs": measure_graphs,
    "updates": measure_updates,
    "pretraining": measure_pretraining,
    "embed": measure_embed,
}

if __name__ == "__main__":
    main()
