"""Task models on a GPU: the losses, gradients and decisions of a CPU, and training by `Trainer` as it comes.

Without a GPU these tests are skipped; those of the kernels, which have a GPU's code run on a CPU, are not.
"""

import copy

import pytest
import torch
from transformers import Trainer, pipeline

from elmo_hf import ElmoForSemanticRoleLabeling, ElmoForTokenClassification, ElmoLayerCache, ElmoTokenizer
from tests.helpers import small_classifiers, small_coreference, small_question_answering
from tests.helpers.trainers import arguments
from tests.model import test_modeling_elmo_tagging as tagging

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
LABELS = ("labels", "start_positions", "end_positions")
BOTH = {"elmo_at_output": True, "task_char_filters": [[2, 5]], "freeze_elmo": False}


def tagger(head, **options):
    model = tagging.make(head, **BOTH, **options)
    return model, tagging.encode(model)


def classifier(architecture):
    model = small_classifiers.make(architecture, **BOTH)
    return model, small_classifiers.encode(architecture) | {"labels": small_classifiers.LABELS}


def questions():
    return small_question_answering.make(**BOTH), small_question_answering.pairs(
        places=small_question_answering.PLACES
    )


def documents():
    both = ([small_coreference.SENTENCES, small_coreference.SHORT],)
    batch = small_coreference.encode(*both, [small_coreference.GOLD, small_coreference.SHORT_GOLD])
    return small_coreference.make(**BOTH), batch


HEADS = {
    "names": lambda: tagger(ElmoForTokenClassification),
    "tags": lambda: tagger(ElmoForTokenClassification, use_crf=False),
    "roles": lambda: tagger(ElmoForSemanticRoleLabeling),
    "roles by rule": lambda: tagger(ElmoForSemanticRoleLabeling, use_crf=False, role_rules=True),
    "texts": lambda: classifier("bcn"),
    "pairs": lambda: classifier("esim"),
    "questions": questions,
    "documents": documents,
}


def on(device, batch):
    return {name: value.to(device) for name, value in batch.items()}


def without_labels(batch):
    return {name: value for name, value in batch.items() if name not in LABELS}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_numbers_and_decisions_are_those_of_a_cpu(head, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model, batch = HEADS[head]()
    model = model.to(dtype)
    for module in model.modules():  # chance is another one on a GPU, and cuDNN has no gradient in eval()
        if isinstance(getattr(module, "p", None), float):
            module.p = 0.0
    bound = {"rtol": 1e-7, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-5}
    results = {}
    for device in ("cpu", "cuda"):
        moved = copy.deepcopy(model).to(device)
        inputs = on(device, batch)
        moved.eval()
        for _ in range(3):  # graphs are made at the second call, and played from then on
            decoded = moved.decode(**without_labels(inputs))
        moved.train()
        loss = moved(**inputs).loss
        loss.backward()
        gradients = {
            name: weight.grad for name, weight in moved.named_parameters() if weight.grad is not None
        }
        assert decoded.device.type == loss.device.type == device
        results[device] = (
            decoded.cpu(),
            loss.cpu(),
            {name: gradient.cpu() for name, gradient in gradients.items()},
        )
    for ours, theirs in zip(results["cuda"], results["cpu"], strict=True):
        torch.testing.assert_close(ours, theirs, **bound)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_trainer_teaches_on_the_gpu(head, half, tmp_path):
    """One batch by heart, with the frozen biLM's layers from the cache, also in half precision."""
    model, batch = HEADS[head]()
    model = type(model)(model.config.__class__.from_dict(model.config.to_dict() | {"freeze_elmo": True}))
    model.elmo_cache = ElmoLayerCache()
    batches = {"per_device_train_batch_size": 1, "remove_unused_columns": False}
    training_arguments = arguments(tmp_path, 60, 0.02, use_cpu=False, bf16=half, **batches)
    trainer = Trainer(
        model, training_arguments, train_dataset=[0], eval_dataset=[0], data_collator=lambda _: dict(batch)
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert next(model.parameters()).is_cuda
    assert trainer.evaluate()["eval_loss"] < 0.8 * before
    assert model.elmo_cache.reused > model.elmo_cache.encoded


def test_a_pipeline_on_the_gpu_is_one_on_a_cpu(tmp_path):
    model = tagging.make(ElmoForTokenClassification).eval()
    predictions = []
    for device in ("cpu", "cuda"):
        names = pipeline(
            "token-classification",
            model=copy.deepcopy(model),
            tokenizer=ElmoTokenizer(),
            aggregation_strategy="simple",
            device=device,
        )
        predictions.append(names("Ada Lovelace lived in London ."))
    assert predictions[0]
    for on_gpu, on_cpu in zip(*predictions, strict=True):
        assert on_gpu.pop("score") == pytest.approx(on_cpu.pop("score"), abs=1e-4)
        assert on_gpu == on_cpu
