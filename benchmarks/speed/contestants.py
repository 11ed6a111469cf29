"""The contestants. Each class runs in its own process (worker.py), in the Python that has its library; so it
imports the library in its constructor, and this file keeps to Python 3.9 and the standard library.

A contestant turns sentences (lists of words) into vectors, or does a training step. ELMos return the average
of the layers, or all layers from ready ids; the others their last layer. All ELMos have the same weights.
"""

from __future__ import annotations

import math
import tempfile
from typing import Any
from unittest import mock

from benchmarks.speed import workloads
from benchmarks.speed.contestant import Contestant, Unavailable, start_torch
from benchmarks.speed.peak import Peak

# ---- in torch


class Ours(Contestant):
    """elmo_hf with one of its kernels: "ours-readable", "ours-auto", ..."""

    libraries = ("elmo_hf", "torch", "transformers")
    settings: tuple[str, ...] = (*workloads.READING, "train")
    by_length = True

    def __init__(self, job):
        super().__init__(job)
        self.torch = start_torch(job)
        kernel = job.contestant.split("-")[1]
        inexact = {"bf16": "bfloat16", "int8": "int8"}
        if kernel in inexact and job.setting == "train":
            raise Unavailable("")  # for inference only
        use_kernel(kernel)
        self.dtype = inexact.get(kernel, "float32")
        self.embed_options: dict[str, Any] = {"layers": "average", "progress": False}
        from elmo_hf import ElmoModel, ElmoTokenizer

        self.tokenizer = ElmoTokenizer()
        self.model = ElmoModel.from_pretrained(job.weights / "transformers")
        self.model.train(job.setting == "train")

    def run(self, setting, prepared):
        super().run(setting, prepared)
        reason = why_readable()
        return {"note": f"ran the readable code: {reason}"} if reason else None

    def encode(self, sentences):
        return self.tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")

    def layers(self, encoded):
        with self.torch.inference_mode():
            return self.model(**encoded, output_hidden_states=True).hidden_states

    def embed(self, sentences):
        with self.torch.inference_mode():
            layers = self.layers(self.encode(sentences))
            return (sum(layers) / len(layers)).numpy()

    def corpus(self, sentences):
        from elmo_hf import embed

        with tempfile.TemporaryDirectory() as folder:  # the time includes writing and reading files
            vectors = embed(sentences, folder, self.model, tokenizer=self.tokenizer, **self.embed_options)
            return [sentence.vectors for sentence in vectors]

    def train(self, rows):
        self.model.zero_grad()
        loss = self.model(**self.encode(rows)).last_hidden_state.pow(2).mean()
        loss.backward()
        return float(loss.detach()), self.model.parameters()


class OursFrozen(Ours):
    """A service's promise that the weights stay as they are: they are not compared in each call, and what
    reads the input is laid out, as onnxruntime does with the weights of its file."""

    settings = workloads.READING

    def __init__(self, job):
        super().__init__(job)
        from elmo_hf import kernels

        self.promise = kernels.frozen(self.model)
        self.promise.__enter__()  # for as long as the process


class OursUncached(Ours):
    """A corpus without the word cache: how much of a ratio is due to the cache."""

    settings = ("corpus",)

    def __init__(self, job):
        super().__init__(job)
        self.embed_options["cache_words"] = 0


class OursUnsorted(Ours):
    """A corpus in the file's order: how much of a ratio is due to sorting. `embed` has no such option, so the
    function that makes its batches is replaced; their budget of words stays."""

    settings = ("corpus",)

    def corpus(self, sentences):
        with mock.patch("elmo_hf.embedding.embedder.batches", batches_in_order):
            return super().corpus(sentences)


def batches_in_order(lengths, budget):
    """Like `elmo_hf.corpus.sentences.batches`, with the same budget of words and padding, but unsorted."""
    batch: list[int] = []
    longest = 0
    for number, length in enumerate(lengths):
        if not length:
            continue
        if batch and max(longest, length) * (len(batch) + 1) > budget:
            yield batch
            batch, longest = [], 0
        batch.append(number)
        longest = max(longest, length)
    if batch:
        yield batch


def use_kernel(name):
    from elmo_hf.kernels import use

    try:
        use(name)
    except (ValueError, KeyError, ImportError, RuntimeError) as error:
        raise Unavailable(str(error).split("\n")[0]) from error


def why_readable():
    """The reason if the last call ran the readable code in place of the chosen kernel."""
    try:
        from elmo_hf.kernels import why_not
    except ImportError:
        return ""
    return why_not()


class OnnxRuntime(Contestant):
    """Our own exported file, read by onnxruntime."""

    libraries = ("elmo_hf", "onnxruntime")
    by_length = True

    def __init__(self, job):
        super().__init__(job)
        import onnxruntime

        from elmo_hf import ElmoTokenizer
        from elmo_hf.export.onnx import export_onnx

        layers = "all" if job.setting == "ready" else "average"
        folder = job.weights / f"onnx-{layers}"
        if not folder.exists():
            export_onnx(job.weights / "transformers", folder, layers=layers)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        path, providers = str(folder / "model.onnx"), ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.tokenizer = ElmoTokenizer()

    def encode(self, sentences):
        return self.tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="np")

    def layers(self, encoded):
        return self.session.run(None, {name: encoded[name] for name in self.inputs})

    def embed(self, sentences):
        return self.layers(self.encode(sentences))[0]


class AllenNLP(Contestant):
    libraries = ("allennlp", "torch", "numpy")
    settings: tuple[str, ...] = (*workloads.READING, "train")

    def __init__(self, job):
        super().__init__(job)
        self.torch = start_torch(job)
        from allennlp.modules.elmo import Elmo, batch_to_ids

        self.batch_to_ids = batch_to_ids
        files = [str(job.weights / "bilm" / name) for name in ("options.json", "weights.hdf5")]
        average = [0.0] * (workloads.NUM_LAYERS + 1)
        self.model = Elmo(
            *files, 1, dropout=0, scalar_mix_parameters=average, requires_grad=job.setting == "train"
        )
        self.model.train(job.setting == "train")

    def encode(self, sentences):
        return self.batch_to_ids(sentences)

    def layers(self, encoded):
        with self.torch.inference_mode():
            return [layer[:, 1:-1] for layer in self.model._elmo_lstm(encoded)["activations"]]

    def embed(self, sentences):
        with self.torch.inference_mode():
            return self.model(self.encode(sentences))["elmo_representations"][0].numpy()

    def train(self, rows):
        self.fresh()  # the state is carried over, so steps would differ
        self.model.zero_grad(set_to_none=True)
        layers = self.model._elmo_lstm(self.encode(rows))["activations"]
        loss = layers[-1][:, 1:-1].pow(2).mean()
        loss.backward()
        return float(loss.detach()), self.model.parameters()

    def fresh(self):
        self.model._elmo_lstm._elmo_lstm.reset_states()


class AllenNLPByLength(AllenNLP):
    """The same with the sentences sorted by length: how much of a ratio is due to sorting."""

    settings = ("corpus",)
    by_length = True


class TransformersEncoder(Contestant):
    """An encoder of Transformers with random weights, on 1.25 random pieces a word and two special tokens."""

    libraries = ("transformers", "torch")
    by_length = True
    is_elmo = False
    names = ("BertConfig", "BertModel")

    def __init__(self, job):
        super().__init__(job)
        self.torch = start_torch(job)
        import transformers

        config = getattr(transformers, self.names[0])()
        self.model = getattr(transformers, self.names[1])(config).eval()
        self.vocabulary = config.vocab_size

    def encode(self, sentences):
        pieces = self.torch.tensor([number_of_pieces(sentence) for sentence in sentences])
        ids = self.torch.randint(self.vocabulary, (len(sentences), int(pieces.max())))
        return {
            "input_ids": ids,
            "attention_mask": (self.torch.arange(ids.shape[1]) < pieces[:, None]).long(),
        }

    def layers(self, encoded):
        with self.torch.inference_mode():
            return [self.model(**encoded).last_hidden_state]

    def embed(self, sentences):
        return self.layers(self.encode(sentences))[-1].numpy()

    def work(self, setting, calls):
        """The linear layers; attention itself adds little at these lengths."""
        linears = (module for module in self.model.modules() if isinstance(module, self.torch.nn.Linear))
        weights = sum(linear.weight.numel() for linear in linears)
        pieces = sum(number_of_pieces(sentence) for call in calls for sentence in call)
        return {"linear": 2 * weights * pieces}


def number_of_pieces(sentence):
    return math.ceil(workloads.PIECES_PER_WORD * len(sentence)) + 2


class DistilBert(TransformersEncoder):
    names = ("DistilBertConfig", "DistilBertModel")


class ModernBert(TransformersEncoder):
    names = ("ModernBertConfig", "ModernBertModel")


class TorchLSTM(Contestant):
    """torch's own LSTM with projection, one stack a direction, as a reference point. It has no clips,
    residual connections or characters, so it does less than an ELMo."""

    libraries = ("torch",)
    settings = (*workloads.READING, "train")
    by_length = True
    is_elmo = False

    def __init__(self, job):
        super().__init__(job)
        self.torch = start_torch(job)
        cells, width = (workloads.SIZES[job.size][name] for name in ("lstm_dim", "projection_dim"))
        self.stacks = self.torch.nn.ModuleList(
            self.torch.nn.LSTM(
                width, cells, proj_size=width, num_layers=workloads.NUM_LAYERS, batch_first=True
            )
            for _ in range(2)
        )

    def encode(self, sentences):
        longest = max(map(len, sentences)) + 2  # with the boundaries of the sentence
        return self.torch.randn(len(sentences), longest, self.stacks[0].input_size)

    def forward(self, x):
        halves = [stack(inputs)[0] for stack, inputs in ((self.stacks[0], x), (self.stacks[1], x.flip(1)))]
        return self.torch.cat([halves[0], halves[1].flip(1)], dim=-1)[:, 1:-1]

    def layers(self, encoded):
        with self.torch.inference_mode():
            return [self.forward(encoded)]

    def embed(self, sentences):
        return self.layers(self.encode(sentences))[-1].numpy()

    def train(self, rows):
        self.stacks.zero_grad()
        loss = self.forward(self.encode(rows)).pow(2).mean()
        loss.backward()
        return float(loss.detach()), self.stacks.parameters()

    def work(self, setting, calls):
        steps = workloads.number_of_words(calls) * (3 if setting == "train" else 1)
        return workloads.times(workloads.lstm_work(self.job.size), steps)


# ---- in TensorFlow


class SimpleElmo(Contestant):
    libraries = ("simple_elmo", "tensorflow-cpu", "numpy")

    def __init__(self, job):
        super().__init__(job)
        import logging

        import tensorflow as tf
        from simple_elmo import ElmoModel
        from simple_elmo.elmo import weight_layers

        self.tf, self.model = tf.compat.v1, ElmoModel()
        logging.getLogger().setLevel(logging.WARNING)
        self.model.load(str(job.weights / "bilm"), max_batch_size=workloads.BATCH)
        # Without a session given, each call would build the end of the graph and initialise all variables.
        self.model.elmo_sentence_input = weight_layers("input", self.model.sentence_embeddings_op)
        threads = {"intra_op_parallelism_threads": job.threads, "inter_op_parallelism_threads": job.threads}
        self.session = self.tf.Session(config=self.tf.ConfigProto(**threads))
        self.fresh()

    def encode(self, sentences):
        return self.model.batcher.batch_sentences(sentences)

    def layers(self, encoded):
        layers = self.model.sentence_embeddings_op["lm_embeddings"]
        return list(self.session.run(layers, {self.model.sentence_character_ids: encoded}).swapaxes(0, 1))

    def embed(self, sentences):
        return self.model.get_elmo_vectors(sentences, warmup=False, session=self.session)

    def corpus(self, sentences):
        return self.embed(sentences)  # makes its own batches in the file's order

    def fresh(self):
        self.session.run(self.tf.global_variables_initializer())


CLASSES = {
    "onnxruntime": OnnxRuntime,
    "allennlp": AllenNLP,
    "allennlp-by-length": AllenNLPByLength,
    "simple-elmo": SimpleElmo,
    "bert-base": TransformersEncoder,
    "distilbert": DistilBert,
    "modernbert-base": ModernBert,
    "torch-lstm": TorchLSTM,
    "peak": Peak,
}


VARIANTS = {"": Ours, "frozen": OursFrozen, "unsorted": OursUnsorted, "uncached": OursUncached}


def class_of(name):
    if name.startswith("ours-"):
        variant = name.partition("-")[2].partition("-")[2]
        if variant not in VARIANTS:
            raise Unavailable(
                f"unknown; the names are ours-<kernel>, ours-<kernel>-{', -'.join([*VARIANTS][1:])}"
            )
        return VARIANTS[variant]
    if name not in CLASSES:
        raise Unavailable(f"unknown; the names are ours-<kernel>, {', '.join(CLASSES)}")
    return CLASSES[name]
