"""Convert weights of other ELMo implementations to Transformers folders and back, without loss.

Each family of files has a module with the roles of its files, a table of names and its options: `bilm.py`
(HDF5 weights beside an options.json, from AllenNLP and bilm-tf), `tensorflow.py` (checkpoints, modules,
SavedModels), `allennlp.py` (archives and state dicts), `manylangs.py` (folders of ELMoForManyLangs).
`conversion.py` finds the family, `plan.py` holds what is going to be done and writes the folder, `table.py`
and `arrays.py` are what tables of names and readers of files share.
"""

from elmo_hf.convert.bilm import convert_from_bilm, convert_to_bilm
from elmo_hf.convert.conversion import convert
from elmo_hf.errors import ElmoError

ConversionError = ElmoError  # its name in version 0.1.0

__all__ = ["ConversionError", "convert", "convert_from_bilm", "convert_to_bilm"]
