"""Transformers' own model and configuration tests, run on our classes.

They come with the source distribution of transformers, not with the installed package, so they are found by
the environment variable TRANSFORMERS_TESTS (the folder `tests` of an unpacked source distribution of the
installed version; `.ci/run` fetches it) and skipped without it.
"""

import importlib
import os
import sys
import types
import unittest
import warnings
from pathlib import Path
from unittest import mock

import pytest
import torch

from elmo_hf import (
    ElmoConfig,
    ElmoForCoreferenceResolution,
    ElmoForPreTraining,
    ElmoForQuestionAnswering,
    ElmoForSemanticRoleLabeling,
    ElmoForSequenceClassification,
    ElmoForTokenClassification,
    ElmoModel,
    ElmoTokenizer,
)
from elmo_hf.model.words_elmo import SENTENCE_BEGIN, SENTENCE_END

SOURCES = os.environ.get("TRANSFORMERS_TESTS")
if not SOURCES:
    pytest.skip("TRANSFORMERS_TESTS does not name transformers' tests folder", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")  # what transformers' tests warn of is theirs


def load(name):
    """A module of that folder. What it imports beside it and the distribution lacks is an empty mixin:
    generation and exporters, which no ELMo has."""
    package = types.ModuleType("transformers_tests")
    package.__path__ = [SOURCES]
    sys.modules.setdefault("transformers_tests", package)
    absent = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}
    for module, attribute in absent.items():
        parent = sys.modules.setdefault(
            f"transformers_tests.{module.split('.')[0]}", types.ModuleType(module)
        )
        parent.__path__ = []
        stub = types.ModuleType(module)
        setattr(stub, attribute, type(attribute, (), {}))
        sys.modules.setdefault(f"transformers_tests.{module}", stub)
    common = types.ModuleType("utils")
    common.config_common_kwargs = {
        "return_dict": False,
        "output_hidden_states": True,
        "dtype": "float16",
        "chunk_size_feed_forward": 5,
        "architectures": ["BertModel"],
        "id2label": {0: "label"},
        "label2id": {"label": "0"},
        "problem_type": "regression",
    }
    sys.modules.setdefault("transformers_tests.utils", types.ModuleType("utils"))
    sys.modules["transformers_tests.utils"].__path__ = []
    sys.modules.setdefault("transformers_tests.utils.test_configuration_utils", common)
    return importlib.import_module(f"transformers_tests.{name}")


assert Path(SOURCES, "test_modeling_common.py").exists(), f"{SOURCES} holds no test_modeling_common.py"
with warnings.catch_warnings(), mock.patch("transformers.utils.direct_transformers_import"):
    warnings.simplefilter("ignore")
    modeling, configuration = load("test_modeling_common"), load("test_configuration_common")


class SmallElmo:
    """The smallest ELMo with every part, and random sentences for it."""

    batch_size, seq_length, hidden_size, num_hidden_layers = 3, 7, 16, 2
    is_training = True
    # The suite makes `inputs_embeds` of `input_ids`, so a letter is as wide as a word here.
    char_embedding_dim = 8

    def __init__(self, parent):
        self.parent = parent

    def get_config(self, **options):
        return ElmoConfig(
            vocab_size=30,
            char_embedding_dim=self.char_embedding_dim,
            char_filters=[[1, 4], [2, 6]],
            lstm_dim=12,
            projection_dim=8,
            max_characters_per_token=10,
            dropout=0.0,
            **options,
        )

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        inputs = {
            "input_ids": torch.randint(0, 30, shape),
            "char_ids": torch.randint(1, 262, (*shape, 10)),
            "attention_mask": torch.ones(shape, dtype=torch.long),
        }
        return self.get_config(), inputs


class ModelTests(modeling.ModelTesterMixin):
    def test_model_weights_reload_no_missing_tied_weights(self):
        """With a file that has one tensor of another name, of floats: one of integers is refused."""
        save = modeling.safe_save_file

        def save_floats(tensors, *args, **kwargs):
            save({name: tensor.float() for name, tensor in tensors.items()}, *args, **kwargs)

        with mock.patch.object(modeling, "safe_save_file", save_floats):
            super().test_model_weights_reload_no_missing_tied_weights()


class ElmoConformanceTest(ModelTests, unittest.TestCase):
    all_model_classes = (ElmoModel, ElmoForPreTraining)
    has_attentions = False
    is_encoder_decoder = False
    test_resize_embeddings = False  # refused: characters are fixed

    def setUp(self):
        self.model_tester = SmallElmo(self)
        self.config_tester = configuration.ConfigTester(
            self,
            config_class=ElmoConfig,
            common_properties=["hidden_size", "num_hidden_layers"],
            lstm_dim=12,
            projection_dim=8,
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        if return_labels and model_class is ElmoForPreTraining:
            inputs["labels"] = inputs["input_ids"]
        return inputs

    # The backbone alone has no loss to train on.

    def test_training(self):
        self.all_model_classes = (ElmoForPreTraining,)
        super().test_training()

    def check_training_gradient_checkpointing(self, **kwargs):
        self.all_model_classes = (ElmoForPreTraining,)
        super().check_training_gradient_checkpointing(**kwargs)


class SmallWordsAndLetters(SmallElmo):
    """Letters of a lexicon, words beside them, a projection of the same size, and stored mixes."""

    letters = {"num_characters": 90, "boundary_characters": [85, 86, 87, 88, 89]}  # noqa: RUF012
    options = {"word_embedding_dim": 3, "lstm_projection": True, "num_mixes": 2}  # noqa: RUF012

    def get_config(self, **options):
        return super().get_config(**self.letters, **self.options, **options)

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        letters = torch.randint(1, 90, inputs["char_ids"].shape)
        inputs["char_ids"] = torch.cat([letters, 1 + inputs["input_ids"][:, :, None]], dim=2)
        return config, inputs


class SmallStack(SmallWordsAndLetters):
    num_hidden_layers = 1
    options = {"word_embedding_dim": 3, "num_hidden_layers": 1, "stacked_lstm_layers": 2}  # noqa: RUF012


class ElmoWordsAndLettersConformanceTest(ElmoConformanceTest):
    def setUp(self):
        super().setUp()
        self.model_tester = SmallWordsAndLetters(self)


class ElmoStackConformanceTest(ElmoConformanceTest):
    def setUp(self):
        super().setUp()
        self.model_tester = SmallStack(self)


class SmallHead(SmallElmo):
    """A biLM that is tuned with the task, as the suite wants a gradient for every weight."""

    num_labels = 4

    def get_config(self):
        return super().get_config(
            freeze_elmo=False,
            elmo_at_output=True,
            elmo_dropout=0.0,
            task_dropout=0.0,
            task_hidden_size=6,
            predicate_dim=3,
            num_labels=self.num_labels,
        )

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), super().prepare_config_and_inputs_for_common()[1]


class SmallCoreference(SmallElmo):
    def get_config(self):
        return super().get_config(
            freeze_elmo=False,
            elmo_at_output=True,
            elmo_dropout=0.0,
            task_dropout=0.0,
            task_hidden_size=6,
            max_span_width=3,
            span_hidden_size=5,
            span_feature_dim=3,
        )

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), super().prepare_config_and_inputs_for_common()[1]


class CoreferenceConformanceTest(ModelTests, unittest.TestCase):
    """A row of the suite's batches is a document of one sentence."""

    all_model_classes = (ElmoForCoreferenceResolution,)
    has_attentions = False
    is_encoder_decoder = False
    test_resize_embeddings = False  # refused: characters are fixed

    def setUp(self):
        self.model_tester = SmallCoreference(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        documents = len(inputs["attention_mask"])
        inputs["document_ids"] = torch.arange(documents)
        if return_labels:
            mentions = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 2, 2, 0], [0, 3, 3, 0]])
            inputs["labels"] = mentions.repeat(documents, 1, 1)
        return inputs


class HeadConformanceTest(ModelTests, unittest.TestCase):
    """Of the heads whose labels are one a word."""

    all_model_classes = (ElmoForTokenClassification, ElmoForSemanticRoleLabeling)
    has_attentions = False
    is_encoder_decoder = False
    test_resize_embeddings = False  # refused: characters are fixed

    def setUp(self):
        self.model_tester = SmallHead(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        words = inputs["attention_mask"].shape
        if model_class is ElmoForSemanticRoleLabeling:
            inputs["predicate_mask"] = torch.nn.functional.one_hot(torch.ones(words[0]).long(), words[1])
        if return_labels:
            inputs["labels"] = torch.ones(words, dtype=torch.long)
        return inputs


class SmallClassifier(SmallElmo):
    """The same sentences with a label each; for "esim", as pairs of three words and two."""

    def get_config(self):
        config = super().get_config()
        options = {"classifier": self.parent.classifier, "num_labels": 3, "task_hidden_size": 5}
        # Nothing is frozen, for the suite asks for every gradient.
        options |= {"freeze_elmo": False, "elmo_at_output": True, "elmo_dropout": 0.0, "task_dropout": 0.0}
        return ElmoConfig.from_dict(config.to_dict() | options)

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        if config.classifier == "esim":
            separators = ElmoTokenizer(max_characters_per_token=10)("", "", return_tensors="pt")
            inputs["char_ids"][:, 3:5] = separators["char_ids"]
        return config, inputs


class ElmoBCNConformanceTest(ModelTests, unittest.TestCase):
    all_model_classes = (ElmoForSequenceClassification,)
    classifier = "bcn"
    has_attentions = False
    is_encoder_decoder = False
    test_resize_embeddings = False  # refused: characters are fixed

    def setUp(self):
        self.model_tester = SmallClassifier(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        return dict(inputs_dict) | ({"labels": torch.tensor([2, 0, 1])} if return_labels else {})


class ElmoESIMConformanceTest(ElmoBCNConformanceTest):
    classifier = "esim"

    @unittest.skip("each sentence is read by itself, and its layers are put into the row afterwards")
    def test_retain_grad_hidden_states_attentions(self):
        pass


class SmallPairs(SmallHead):
    """Rows of two words, `</S> <S>`, and three words."""

    def prepare_config_and_inputs_for_common(self):
        config, inputs = super().prepare_config_and_inputs_for_common()
        inputs["token_type_ids"] = torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * self.batch_size)
        inputs["char_ids"][:, 2:4, 1] = torch.tensor([SENTENCE_END, SENTENCE_BEGIN])
        return config, inputs


class QuestionAnsweringConformanceTest(HeadConformanceTest):
    all_model_classes = (ElmoForQuestionAnswering,)

    def setUp(self):
        self.model_tester = SmallPairs(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        if return_labels:
            inputs["start_positions"] = torch.full((len(inputs["attention_mask"]),), 4)
            inputs["end_positions"] = torch.full((len(inputs["attention_mask"]),), 6)
        return inputs

    @unittest.skip("question and context are read apart; their layers are put into one row afterwards")
    def test_retain_grad_hidden_states_attentions(self):
        pass
