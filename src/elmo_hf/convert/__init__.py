"""Convert weights of other ELMo implementations to Transformers folders and back, without loss.

`bilm` is the format of AllenNLP and bilm-tf: HDF5 weights beside an options.json. A format consists of the
roles of its files (`files.py`), a table of names (`table.py`) and options (`options.py`).
"""

from elmo_hf.convert.bilm import convert_from_bilm, convert_to_bilm
from elmo_hf.errors import ElmoError

ConversionError = ElmoError  # its name in version 0.1.0

__all__ = ["ConversionError", "convert_from_bilm", "convert_to_bilm"]
