"""Weights of other ELMo implementations to Transformers folders and back, without loss.

`bilm` is the format of AllenNLP and bilm-tf: HDF5 weights beside an options.json.
"""

from elmo_hf.convert.bilm import convert_from_bilm, convert_to_bilm
from elmo_hf.convert.hdf5 import ConversionError

__all__ = ["ConversionError", "convert_from_bilm", "convert_to_bilm"]
