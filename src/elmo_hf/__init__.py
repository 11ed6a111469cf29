"""ELMo for Hugging Face Transformers. Importing this package makes the Auto classes know it."""

from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from elmo_hf.embedding.job import embed
from elmo_hf.embedding.vectors import read_vectors
from elmo_hf.model.cache_elmo import ElmoLayerCache
from elmo_hf.model.configuration_elmo import ElmoConfig
from elmo_hf.model.layers_elmo import ElmoScalarMix
from elmo_hf.model.modeling_elmo import ElmoModel, ElmoPreTrainedModel
from elmo_hf.model.modeling_elmo_classification import ElmoForSequenceClassification
from elmo_hf.model.modeling_elmo_coreference import ElmoForCoreferenceResolution
from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
from elmo_hf.model.modeling_elmo_question_answering import ElmoForQuestionAnswering
from elmo_hf.model.modeling_elmo_tagging import ElmoForSemanticRoleLabeling, ElmoForTokenClassification
from elmo_hf.model.tokenization_elmo import ElmoTokenizer

__version__ = "0.1.0"
TINY = Path(__file__).parent / "checkpoints" / "elmo-tiny"  # a small pretrained model, for from_pretrained
__all__ = [
    "TINY",
    "ElmoConfig",
    "ElmoForCoreferenceResolution",
    "ElmoForPreTraining",
    "ElmoForQuestionAnswering",
    "ElmoForSemanticRoleLabeling",
    "ElmoForSequenceClassification",
    "ElmoForTokenClassification",
    "ElmoLayerCache",
    "ElmoModel",
    "ElmoPreTrainedModel",
    "ElmoScalarMix",
    "ElmoTokenizer",
    "embed",
    "read_vectors",
]

AutoConfig.register("elmo", ElmoConfig, exist_ok=True)
# Of several, the library takes the one that `config.architectures` names, or the first.
AutoModel.register(ElmoConfig, (ElmoModel, ElmoForCoreferenceResolution), exist_ok=True)
AutoModelForPreTraining.register(ElmoConfig, ElmoForPreTraining, exist_ok=True)
AutoModelForSequenceClassification.register(ElmoConfig, ElmoForSequenceClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(ElmoConfig, ElmoForQuestionAnswering, exist_ok=True)
AutoModelForTokenClassification.register(
    ElmoConfig, (ElmoForTokenClassification, ElmoForSemanticRoleLabeling), exist_ok=True
)
AutoTokenizer.register(ElmoConfig, tokenizer_class=ElmoTokenizer, exist_ok=True)
