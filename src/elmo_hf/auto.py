"""Makes Transformers' Auto classes know ELMo.

`AutoModel.from_pretrained` and its like find our classes once they are registered. To register them takes
seconds of imports (torch, `transformers.modeling_utils`), which `elmo-hf --help` does not need. So what is
registered waits until the Auto classes themselves are imported.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from elmo_hf.model.configuration_elmo import ElmoConfig

    AutoConfig.register("elmo", ElmoConfig, exist_ok=True)


def _register_tokenizer() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from elmo_hf.model.configuration_elmo import ElmoConfig
    from elmo_hf.model.tokenization_elmo import ElmoTokenizer

    AutoTokenizer.register(ElmoConfig, tokenizer_class=ElmoTokenizer, exist_ok=True)


def _register_models() -> None:
    from transformers.models.auto import modeling_auto as auto

    from elmo_hf.model.configuration_elmo import ElmoConfig
    from elmo_hf.model.modeling_elmo import ElmoModel
    from elmo_hf.model.modeling_elmo_classification import ElmoForSequenceClassification
    from elmo_hf.model.modeling_elmo_coreference import ElmoForCoreferenceResolution
    from elmo_hf.model.modeling_elmo_pretraining import ElmoForPreTraining
    from elmo_hf.model.modeling_elmo_question_answering import ElmoForQuestionAnswering
    from elmo_hf.model.modeling_elmo_tagging import ElmoForSemanticRoleLabeling, ElmoForTokenClassification

    # Of several classes, the library takes the one that `config.architectures` names, or the first.
    taggers = (ElmoForTokenClassification, ElmoForSemanticRoleLabeling)
    auto.AutoModel.register(ElmoConfig, (ElmoModel, ElmoForCoreferenceResolution), exist_ok=True)
    auto.AutoModelForPreTraining.register(ElmoConfig, ElmoForPreTraining, exist_ok=True)
    auto.AutoModelForQuestionAnswering.register(ElmoConfig, ElmoForQuestionAnswering, exist_ok=True)
    auto.AutoModelForSequenceClassification.register(ElmoConfig, ElmoForSequenceClassification, exist_ok=True)
    auto.AutoModelForTokenClassification.register(ElmoConfig, taggers, exist_ok=True)


def register() -> None:
    """Registers what has been imported at once, and everything else when it is imported."""
    hooks = {
        "transformers.models.auto.configuration_auto": _register_config,
        "transformers.models.auto.tokenization_auto": _register_tokenizer,
        "transformers.models.auto.modeling_auto": _register_models,
    }
    waiting = {name: hook for name, hook in hooks.items() if name not in sys.modules}
    for name, hook in hooks.items():
        if name not in waiting:
            hook()
    if waiting:
        sys.meta_path.insert(0, _AfterImport(waiting))


class _AfterImport(MetaPathFinder):
    """Calls a hook when the module of its name has been imported."""

    def __init__(self, hooks: dict[str, Callable[[], None]]) -> None:
        self.hooks = hooks

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        hook = self.hooks.pop(fullname, None)
        spec = PathFinder.find_spec(fullname, path) if hook is not None else None
        if hook is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            hook()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
