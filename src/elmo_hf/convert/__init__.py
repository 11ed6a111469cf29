"""Weights of other ELMo implementations to Transformers folders and back, without loss.

`bilm` is the format of AllenNLP and bilm-tf: HDF5 weights beside an options.json.
"""

from elmo_hf.convert.bilm import convert_from_bilm, convert_to_bilm
from elmo_hf.errors import ElmoError

__all__ = ["ElmoError", "convert_from_bilm", "convert_to_bilm"]
