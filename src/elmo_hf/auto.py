"""Makes Transformers' Auto classes know ELMo, as soon as Transformers is imported.

`AutoModel.from_pretrained` and its like find our classes once these are registered. That takes seconds of
imports (torch, `transformers.modeling_utils`), which `elmo-hf --help` need not wait for. So `import elmo_hf`
registers at once if Transformers has been imported before, and otherwise at the end of `import transformers`.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def register() -> None:
    """Registers now, or when Transformers is imported."""
    if "transformers" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterTransformers())


def _register() -> None:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForPreTraining,
        AutoModelForQuestionAnswering,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
    )

    from elmo_hf.model.configuration_elmo import ElmoConfig
    from elmo_hf.model.modeling_elmo import ElmoModel
    from elmo_hf.model.modeling_elmo_classification import ElmoForSequenceClassification
    from elmo_hf.model.modeling_elmo_coreference import ElmoForCoreferenceResolution
    from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
    from elmo_hf.model.modeling_elmo_question_answering import ElmoForQuestionAnswering
    from elmo_hf.model.modeling_elmo_tagging import ElmoForSemanticRoleLabeling, ElmoForTokenClassification
    from elmo_hf.model.tokenization_elmo import ElmoTokenizer

    AutoConfig.register("elmo", ElmoConfig, exist_ok=True)
    AutoTokenizer.register(ElmoConfig, tokenizer_class=ElmoTokenizer, exist_ok=True)
    # Of several classes, the library takes the one that `config.architectures` names, or the first.
    taggers = (ElmoForTokenClassification, ElmoForSemanticRoleLabeling)
    AutoModel.register(ElmoConfig, (ElmoModel, ElmoForCoreferenceResolution), exist_ok=True)
    AutoModelForPreTraining.register(ElmoConfig, ElmoForPreTraining, exist_ok=True)
    AutoModelForQuestionAnswering.register(ElmoConfig, ElmoForQuestionAnswering, exist_ok=True)
    AutoModelForSequenceClassification.register(ElmoConfig, ElmoForSequenceClassification, exist_ok=True)
    AutoModelForTokenClassification.register(ElmoConfig, taggers, exist_ok=True)


class _AfterTransformers(MetaPathFinder):
    """Finds `transformers` as usual, and registers when it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == "transformers" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            sys.meta_path.remove(self)
            execute(module)
            _register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
