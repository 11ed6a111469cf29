"""Adagrad's sums of squares that come with a converted checkpoint, for a run that starts from it.

sums = read_sums(folder, model)                   # {parameter: tensor}; empty if the folder has none
sums = of_vocabulary(sums, shared_rows(tokenizer, new_tokenizer), vocab_size, start=1.0)
optimizer.set_sums(sums)
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from elmo_hf.convert.plan import ACCUMULATORS
from elmo_hf.errors import ElmoError
from elmo_hf.model.folder_elmo import check_inside
from elmo_hf.pretraining.checkpoints import read_tensors

Sums = dict[str, Tensor]
WORD_TABLES = ("lm_head.weight", "lm_head.bias", "elmo.token_encoder.word_embedding.weight")


def read_sums(folder: Path, model: nn.Module) -> Sums:
    """The sums of a folder by the names of the model's parameters; empty if it has none.

    Raises:
        ElmoError: the file is damaged, or of another model.
    """
    path = folder / ACCUMULATORS
    if not path.exists():
        return {}
    try:
        sums = read_tensors(check_inside(path))
    except ElmoError:
        raise
    except ValueError as error:  # it names the file
        raise ElmoError(str(error)) from None
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for name, tensor in sums.items():
        if tensor.shape != shapes.get(name) or not tensor.is_floating_point():
            raise ElmoError(f"{path} is not of this model ({name}); remove it, or convert the model again.")
        if not (tensor.isfinite() & (tensor > 0)).all():
            raise ElmoError(f"{path}: {name} has values that are no sums of squares; remove the file.")
    return sums


def of_vocabulary(sums: Sums, rows: tuple[Tensor, Tensor], vocab_size: int, start: float) -> Sums:
    """The sums of the same model with another vocabulary.

    Args:
        rows: ids of the words that both have, in the new and in the old vocabulary.
        vocab_size: of the new one.
        start: the sums of new words.
    """
    new_rows, old_rows = rows
    changed = {}
    for name in sums.keys() & set(WORD_TABLES):
        table = torch.full((vocab_size, *sums[name].shape[1:]), start)
        table[new_rows] = sums[name][old_rows].float()
        changed[name] = table
    return sums | changed
