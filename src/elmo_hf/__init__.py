"""ELMo for Hugging Face Transformers.

Importing this package makes the Auto classes know ELMo. Its names are imported when they are first used, so
that the import itself takes no time.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmo_hf import auto

if TYPE_CHECKING:
    from elmo_hf import kernels, metrics
    from elmo_hf.embedding.columns import Embed
    from elmo_hf.embedding.encode import encode
    from elmo_hf.embedding.job import embed
    from elmo_hf.embedding.vectors import read_vectors
    from elmo_hf.errors import ElmoError
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
    "ElmoError",
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
    "Embed",
    "embed",
    "encode",
    "kernels",
    "metrics",
    "read_vectors",
]
_MODULES = {
    "ElmoConfig": "model.configuration_elmo",
    "ElmoError": "errors",
    "ElmoForCoreferenceResolution": "model.modeling_elmo_coreference",
    "ElmoForPreTraining": "model.modeling_elmo_pretraining",
    "ElmoForQuestionAnswering": "model.modeling_elmo_question_answering",
    "ElmoForSemanticRoleLabeling": "model.modeling_elmo_tagging",
    "ElmoForSequenceClassification": "model.modeling_elmo_classification",
    "ElmoForTokenClassification": "model.modeling_elmo_tagging",
    "ElmoLayerCache": "model.cache_elmo",
    "ElmoModel": "model.modeling_elmo",
    "ElmoPreTrainedModel": "model.modeling_elmo",
    "ElmoScalarMix": "model.layers_elmo",
    "ElmoTokenizer": "model.tokenization_elmo",
    "Embed": "embedding.columns",
    "embed": "embedding.job",
    "encode": "embedding.encode",
    "read_vectors": "embedding.vectors",
}


def __getattr__(name: str) -> Any:
    if name in ("kernels", "metrics"):
        return import_module(f"elmo_hf.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'elmo_hf' has no attribute {name!r}")
    value = getattr(import_module(f"elmo_hf.{_MODULES[name]}"), name)
    globals()[name] = value  # the next time it is found at once
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


auto.register()
