"""An update that a CUDA graph can hold equals the plain update; a stand-in imitates CUDA on the CPU."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch.utils._python_dispatch import TorchDispatchMode

from elmo_hf import kernels
from elmo_hf.corpus.encoded import EncodedText, encode
from elmo_hf.corpus.encoded_windows import EncodedWindows
from elmo_hf.corpus.encoder import Encoder
from elmo_hf.corpus.source import Source
from elmo_hf.corpus.vocabulary import Vocabulary
from elmo_hf.corpus.windows import Plan, Windows
from elmo_hf.pretraining import captured
from elmo_hf.pretraining.captured import Results, pad_rows, prepare, round_up
from elmo_hf.pretraining.learner import Learner
from elmo_hf.pretraining.sampling import Samples, select_rows
from elmo_hf.pretraining.settings import Settings
from elmo_hf.pretraining.start import fresh_model
from tests.helpers.fake_step_graphs import capture_on_the_cpu
from tests.helpers.launcher import SMOKE, small_run, steps_of
from tests.helpers.paths import TRAINING

VOCAB = TRAINING / "runs" / "smoke_vocab.txt"
ROWS, STEPS, UPDATES = 4, 6, 14
ADAMW = {"optimizer": "adamw", "learning_rate": 0.01, "loss_scale": 1.0, "clip": 1.0, "weight_decay": 0.01}


@pytest.fixture
def capture(monkeypatch):
    yield capture_on_the_cpu(monkeypatch)
    AcceleratorState._reset_state()  # of a case in bfloat16


def make_settings(**changes):
    small = {"lstm_dim": 12, "projection_dim": 6, "char_embedding_dim": 4, "char_filters": [[1, 3], [3, 5]]}
    small |= {"num_highway_layers": 1, "max_characters_per_token": 12, "cell_clip": 0.4, "proj_clip": 0.2}
    small |= {"rows": ROWS, "window": STEPS, "dropout": 0.0, "samples": 40, "vocab": str(VOCAB)}
    return Settings(**small | changes)


def make_learner(**changes):
    settings = make_settings(**changes)
    torch.manual_seed(3)
    model, tokenizer = fresh_model(settings)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn_like(weight)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = settings.dropout
    AcceleratorState._reset_state()
    return Learner(model, settings, Accelerator(cpu=True, mixed_precision=settings.precision)), tokenizer


def make_windows(learner, tokenizer, epochs=2):
    settings = learner.settings
    plan = Plan(rows=ROWS, steps=STEPS, seed=5, epochs=epochs)
    encoder = Encoder(Vocabulary.load(VOCAB), token_encoder=settings.token_encoder, tokenizer=tokenizer)
    return Windows(Source(str(SMOKE)), encoder, plan)


def train(learner, windows, updates=UPDATES, is_captured=True):
    """Make updates; return the losses of each."""
    count, losses = learner.settings.accumulate, []
    for step, group in zip(
        range(updates), iter(lambda: [next(windows) for _ in range(count)], []), strict=False
    ):
        words = torch.tensor(sum(window.mask.sum(axis=(1, 2)) for window in group))
        learner.prepared = learner.prepare(group, step) if is_captured else None
        assert (learner.prepared is not None) == is_captured
        losses.append(dict(learner.update(group, words, step)))
    return losses


def state_of(learner):
    tensors = {name: weight.detach() for name, weight in learner.model.named_parameters()}
    tensors |= learner.optimizer.state_dict()
    h, c = learner.states
    return {name: tensor.clone() for name, tensor in (tensors | {"h": h, "c": c}).items()}


CASES = [
    {},
    {"samples": 0},
    {"restart_rows": 0.3},
    ADAMW,
    ADAMW | {"samples": 0, "accumulate": 2, "restart_rows": 0.3},
    {"token_encoder": "words"},
    ADAMW | {"token_encoder": "words", "samples": 0},
    {"schedule": "linear", "max_steps": 20, "warmup_steps": 4},
    ADAMW | {"schedule": "cosine", "max_steps": 20, "cell_clip": None, "proj_clip": None},
]
NAMES = lambda case: ",".join(case) or "paper"  # noqa: E731


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_it_equals_the_plain_update(capture, case):
    """Over several updates: the same losses, weights, optimizer's state and LSTM states within rounding."""
    (learner, tokenizer), (plain, _) = make_learner(**case), make_learner(**case)
    first = state_of(plain)
    losses = train(learner, iter(make_windows(learner, tokenizer)))
    expected = train(plain, iter(make_windows(plain, tokenizer)), is_captured=False)
    assert capture.replays > 0
    for now, then in zip(losses, expected, strict=True):
        assert now == pytest.approx(then, rel=2e-4)
    new, old = state_of(learner), state_of(plain)
    assert new.keys() == old.keys()
    for name, tensor in old.items():
        torch.testing.assert_close(
            new[name], tensor, rtol=2e-3, atol=2e-4, msg=lambda text, name=name: name + text
        )
        assert not torch.equal(tensor, first[name]), name


@pytest.mark.parametrize(
    "case", [{}, ADAMW | {"dropout": 0.3, "restart_rows": 0.2}, {"precision": "bf16"}], ids=NAMES
)
def test_a_replay_equals_the_work_without_a_graph_bit_for_bit(capture, monkeypatch, case):
    (learner, tokenizer), (eager, _) = make_learner(**case), make_learner(**case)
    losses = train(learner, iter(make_windows(learner, tokenizer)), updates=40)
    assert capture.replays > 20
    replays = capture.replays
    monkeypatch.setattr(captured, "EAGER", 10**9)
    assert train(eager, iter(make_windows(eager, tokenizer)), updates=40) == losses
    assert capture.replays == replays
    new, old = state_of(learner), state_of(eager)
    for name, tensor in old.items():
        assert torch.equal(new[name], tensor), name


def test_a_graph_for_each_size_and_the_oldest_is_dropped(capture, monkeypatch):
    learner, tokenizer = make_learner()
    windows = iter(make_windows(learner, tokenizer))
    train(learner, windows, updates=30)
    sizes = len(learner.captured.entries)
    assert 1 < capture.captures <= sizes
    monkeypatch.setattr(captured, "MAX_GRAPHS", 2)
    train(learner, windows, updates=10)
    assert len(learner.captured.entries) == 2


def test_a_capture_that_fails_is_said_once_and_costs_nothing(capture, capsys):
    capture.error = RuntimeError("operation not permitted\nCompile with ...")
    (learner, tokenizer), (plain, _) = make_learner(), make_learner()
    losses = train(learner, iter(make_windows(learner, tokenizer)))
    expected = train(plain, iter(make_windows(plain, tokenizer)), is_captured=False)
    assert [entry["loss"] for entry in losses] == pytest.approx(
        [entry["loss"] for entry in expected], rel=1e-4
    )
    assert capture.captures == 1
    assert capsys.readouterr().err.count("no CUDA graph could be captured: operation not permitted") == 1


def test_plain_updates_between_captured_ones(capture):
    """As at the end of the text, where windows have padding."""
    (learner, tokenizer), (plain, _) = make_learner(), make_learner()
    windows, others = iter(make_windows(learner, tokenizer)), iter(make_windows(plain, tokenizer))
    for is_captured in (True, False, True):
        losses = train(learner, windows, 5, is_captured)
        expected = train(plain, others, 5, False)
        assert [entry["loss"] for entry in losses] == pytest.approx([e["loss"] for e in expected], rel=2e-4)


@pytest.mark.parametrize("case", [{}, ADAMW, ADAMW | {"samples": 0}, {"samples": 0}], ids=NAMES)
def test_an_update_that_is_not_finite_changes_no_weight(capture, case):
    learner, tokenizer = make_learner(**case)
    windows = iter(make_windows(learner, tokenizer))
    train(learner, windows, updates=6)
    learner.states[0][0, 0, 2, 0] = float("nan")
    before = state_of(learner)
    [losses] = train(learner, windows, updates=1)
    assert not np.isfinite([losses["loss"], losses["norm"]]).any()
    after = state_of(learner)
    for name, tensor in before.items():
        if name not in ("h", "c", "steps") and not (name.endswith(".step") and not case.get("optimizer")):
            assert torch.equal(after[name], tensor), name
    assert (0, 2) in learner.bad_rows()


class NoWaiting(TorchDispatchMode):
    """Refuse operators whose result's size or number Python would have to wait for."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "unique", "equal.default", "masked_select", "is_nonzero")

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function)
        assert not any(f".{word}" in name for word in self.FORBIDDEN), name
        if "aten.index" in name:  # a mask as an index is a hidden `nonzero`
            indices = arguments[1] if isinstance(arguments[1], list | tuple) else []
            assert all(index is None or index.dtype != torch.bool for index in indices), name
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("case", [{}, {"samples": 0}, {"token_encoder": "words"}], ids=NAMES)
def test_nothing_waits_for_a_number(capture, monkeypatch, case):
    learner, tokenizer = make_learner(**case)
    windows = iter(make_windows(learner, tokenizer))
    monkeypatch.setattr(kernels, "_why_readable", lambda *tensors: "")  # the mode is an obstacle to it
    prepared = learner.prepare([next(windows)], 0)
    with NoWaiting():
        results = captured.update(learner, prepared, torch.tensor(0.1))
    assert isinstance(results, Results)


# ---- what it reads


def test_prepared_sizes():
    assert [round_up(number) for number in (0, 1, 7, 16, 17, 31, 33, 1000, 4097)] == [
        *(0, 1, 7, 16, 18, 32, 36, 1024, 4608)
    ]
    assert all(number <= round_up(number) <= 1.15 * number for number in range(1, 5000))
    assert round_up(1000, 1010) == 1010


def test_rows_of_the_softmax_are_padded_by_others():
    targets = torch.tensor([[3, 9, 3], [0, 17, 9]])
    samples = Samples(torch.tensor([[0, 1, 4], [1, 2, 19]]), torch.tensor([[5], [6]]), 20)
    selected = select_rows(targets, samples)
    padded, used = pad_rows(selected, 20)
    assert padded.ids.tolist()[: len(selected.ids)] == selected.ids.tolist()
    assert used.tolist() == [True] * len(selected.ids) + [False] * (len(padded.ids) - len(selected.ids))
    assert len(set(padded.ids.tolist())) == len(padded.ids)
    everything = Samples(torch.arange(20).repeat(2, 1), torch.tensor([[50], [60]]), 20)
    padded, used = pad_rows(select_rows(targets, everything), 20)
    assert padded.ids.tolist() == list(range(20))
    assert used.all()


def test_windows_with_padding_are_not_prepared(capture):
    learner, tokenizer = make_learner()
    windows = list(make_windows(learner, tokenizer, epochs=1))
    is_full = [bool(window.mask.all()) for window in windows]
    assert is_full[0]
    assert not is_full[-1]
    assert [learner.prepare([window], 0) is not None for window in windows[-6:]] == is_full[-6:]
    assert prepare(learner, [], 0) is None


def test_encoded_text_is_prepared_as_its_letters(capture, tmp_path):
    encode(Source(str(SMOKE)), tmp_path / "encoded")
    (learner, tokenizer), (plain, _) = make_learner(), make_learner()
    encoder = Encoder(Vocabulary.load(VOCAB), tokenizer=tokenizer)
    text, plan = EncodedText(tmp_path / "encoded"), Plan(rows=ROWS, steps=STEPS, seed=5, epochs=1)
    losses = []
    for each, is_captured in ((learner, True), (plain, False)):
        windows = EncodedWindows(text, encoder, plan)
        each.set_letters(windows.letters)
        losses.append([entry["loss"] for entry in train(each, iter(windows), 6, is_captured)])
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)
    window = EncodedWindows(text, encoder, plan).window()
    prepared = learner.prepare([window], 0)
    letters = learner.letters_on_cpu[torch.from_numpy(window.input_ids).long()]
    columns = prepared.words[0].shape[1]
    assert torch.equal(prepared.words[0][prepared.places[0]], letters[..., :columns])


def test_why_not(monkeypatch):
    learner, _ = make_learner()
    assert captured.why_not(learner) == "there is no GPU"
    assert captured.why_no_step(learner) == ""
    assert learner.captured is None
    assert learner.prepare([], 0) is None
    kernels.use("readable")
    try:
        assert captured.why_no_step(learner) == "the readable code was asked for"
    finally:
        kernels.use("auto")
    learner.settings.accumulate = 2
    assert "several windows" in captured.why_no_step(learner)
    monkeypatch.setattr(type(learner.accelerator), "num_processes", 2)
    assert captured.why_no_step(learner) == "there are several processes"


# ---- whole runs

ON_THE_CPU = """
import _pytest.monkeypatch
from tests.helpers.fake_step_graphs import capture_on_the_cpu
capture_on_the_cpu(_pytest.monkeypatch.MonkeyPatch())
"""


def test_a_run_with_captured_updates(launcher, tmp_path):
    """Its log is that of a plain run; it stops and goes on bit for bit; the last words are read plainly."""
    same = {"dropout": 0.0, "save_every": 10, "epochs": 1}
    for name, hook in (("plain", ""), ("whole", ON_THE_CPU)):
        run = launcher.start(small_run(tmp_path, name, **same), hook=hook)
        assert run.wait() == [0], run.err
    plain, whole = steps_of(tmp_path / "plain"), steps_of(tmp_path / "whole")
    assert [entry["words"] for entry in whole] == [entry["words"] for entry in plain]
    assert [entry["loss"] for entry in whole] == pytest.approx([entry["loss"] for entry in plain], rel=1e-3)
    for max_steps in (23, None):
        run = launcher.start(small_run(tmp_path, "parts", **same, max_steps=max_steps), hook=ON_THE_CPU)
        assert run.wait() == [0], run.err
    assert steps_of(tmp_path / "parts") == whole
    names = ["model.safetensors"]
    for name in names:
        first, second = (tmp_path / folder / "final" / name for folder in ("whole", "parts"))
        assert first.read_bytes() == second.read_bytes()


def test_a_run_that_is_not_finite_names_its_lines(launcher, tmp_path):
    hook = (
        ON_THE_CPU
        + """
from elmo_hf.pretraining.learner import Learner
update = Learner.update
def spoiled(self, windows, words, step):
    if step == 7:
        self.states[0][0, 0, 1] = float("nan")
    return update(self, windows, words, step)
Learner.update = spoiled
"""
    )
    run = launcher.start(small_run(tmp_path, save_every=5, log_every=100), hook=hook)
    assert run.wait() == [1]
    assert "step 8: the loss or its gradient is not a finite number (it was reading line" in run.err
    assert "the last good checkpoint is" in run.err
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["kind"] == "start"
