"""What saves time in task models gives what the plain definitions give."""

import numpy as np
import pytest
import torch

from elmo_hf import ElmoConfig, ElmoTokenizer
from elmo_hf.model.cells_elmo import ElmoGRU, ElmoHighwayLSTM, init_rnn
from elmo_hf.model.crf_elmo import ElmoBIOSteps, ElmoCRF, best_paths
from elmo_hf.model.task_elmo import ElmoTaskWords

LABELS = ["O", "B-A", "I-A", "I-B", "B-B", "B-C"]


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1], ["O", "B-A"]])
def test_steps_of_bio_alone_lead_to_the_best_allowed_path(labels):
    torch.manual_seed(0)
    crf = ElmoCRF(labels, learned=False, scheme="BIO")
    scores = torch.randn(40, 9, len(labels)) * 2
    scores[:10] = scores[:10].round()  # with ties
    mask = torch.rand(40, 9) < 0.8
    chain = crf._chain(scores)
    plain = best_paths(scores, mask, *chain)
    assert torch.equal(best_paths(scores, mask, *chain, before=ElmoBIOSteps(labels)), plain)
    assert torch.equal(crf.decode(scores, mask), best_paths(scores.log_softmax(-1), mask, *chain))


def test_steps_of_bio_are_not_used_where_there_are_other_rules():
    assert not ElmoBIOSteps.fits(["O", "I-A"], "BIO")  # an I-A without B-A begins nothing
    assert not ElmoBIOSteps.fits(["O", "B-A", "I-A"], "none")
    assert ElmoBIOSteps.fits(LABELS, "BIO")


def brute_force(words, table, convolutions, ids):
    """The maximum over all columns, padding included, of each filter, in NumPy."""
    rows = []
    for characters in ids:
        x = table[characters]
        row = []
        for weight, bias in convolutions:
            width = weight.shape[2]
            columns = [
                np.einsum("wd,fdw->f", x[start : start + width], weight) + bias
                for start in range(len(x) - width + 1)
            ]
            row.append(np.maximum(np.max(columns, axis=0), 0))
        rows.append(np.concatenate(row))
    return np.array(rows)


@pytest.mark.parametrize("words", [["a", "bank"], ["a" * 60, "b"], ["é"]])
def test_letters_are_read_as_if_all_of_their_padding_were(words):
    torch.manual_seed(0)
    config = ElmoConfig(task_char_filters=[[1, 3], [3, 5], [5, 4]], task_char_embedding_dim=6, vocab_size=3)
    task_words = ElmoTaskWords(config)
    batch = ElmoTokenizer()([words], is_split_into_words=True, return_tensors="pt")
    ids = batch["char_ids"]
    mask = torch.ones(1, len(words), dtype=torch.bool)
    vectors = task_words(None, ids, mask)[0].detach().numpy()
    table = task_words.char_embedding.weight.detach().numpy()
    convolutions = [
        (conv.weight.detach().numpy(), conv.bias.detach().numpy()) for conv in task_words.convolutions
    ]
    expected = brute_force(words, table, convolutions, ids[0].numpy())
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_highway_steps_without_gradients_are_the_same():
    torch.manual_seed(0)
    layer = ElmoHighwayLSTM(5, 7, dropout=0.0)
    with torch.no_grad():
        init_rnn(layer)
        torch.nn.init.normal_(layer.input_weight)
    x = torch.randn(3, 6, 5)
    with_gradient = layer(x)
    with torch.no_grad():
        assert torch.equal(layer(x), with_gradient)


def gru_and_torchs() -> tuple[ElmoGRU, torch.nn.GRU]:
    torch.manual_seed(0)
    layer, reference = ElmoGRU(5, 7), torch.nn.GRU(5, 7, batch_first=True)
    reference.load_state_dict(layer.state_dict())
    return layer.double(), reference.double()


def test_the_steps_of_a_gru_and_their_gradients_are_torchs():
    layer, reference = gru_and_torchs()
    x, weights = torch.randn(3, 6, 5).double(), torch.randn(3, 6, 7).double()
    results = []
    for gru in (layer, reference):
        leaf = x.clone().requires_grad_()
        states, last = gru(leaf)
        ((states * weights).sum() + last.square().sum()).backward()
        results.append([states, last, leaf.grad, *(weight.grad for weight in gru.parameters())])
    torch.testing.assert_close(*results)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), reference(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gru_in_low_precision_is_torchs_but_for_rounding(dtype):
    layer, reference = gru_and_torchs()
    x = torch.randn(3, 6, 5)
    expected = reference.float()(x)[0]
    states = layer.to(dtype)(x.to(dtype))[0]
    assert states.dtype == dtype
    torch.testing.assert_close(states.float(), expected, atol=0.02, rtol=0)
    with torch.autocast("cpu", dtype=dtype):
        states = layer.float()(x)[0]
    torch.testing.assert_close(states, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("layer", [ElmoGRU(5, 7), ElmoHighwayLSTM(5, 7, dropout=0.0)], ids=["gru", "highway"])
def test_gradients_within_autocast_are_those_outside(layer):
    """Only the products with the input, which are no steps, are made in bfloat16."""
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    gradients = []
    for is_within in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = layer(torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1)))
            loss = (output if isinstance(output, torch.Tensor) else output[0]).square().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_within):
            names = ("weight_hh_l0", "recurrent_weight")
            [weight] = [weight for name, weight in layer.named_parameters() if name in names]
            gradients.append(torch.autograd.grad(loss, weight)[0])
    assert torch.equal(*gradients)


def test_a_gru_reads_on_from_a_state_and_reads_packed_words_as_torchs():
    layer, reference = gru_and_torchs()
    x, state = torch.randn(2, 3, 5).double(), torch.randn(1, 2, 7).double()
    torch.testing.assert_close(layer(x, state), reference(x, state))
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [3, 2], batch_first=True)
    torch.testing.assert_close(layer(packed)[0].data, reference(packed)[0].data)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
@pytest.mark.parametrize("record", [torch.jit.trace, lambda layer, x: torch.compile(layer, backend="eager")])
def test_a_recorded_gru_reads_other_lengths(record):
    layer, reference = gru_and_torchs()
    with torch.no_grad():
        recorded = record(layer, torch.randn(2, 3, 5).double())
        x = torch.randn(2, 6, 5).double()
        torch.testing.assert_close(recorded(x), reference(x))
