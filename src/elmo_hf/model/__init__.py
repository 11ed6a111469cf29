"""The model: all files that `save_pretrained` copies beside the weights. (It does not copy this one.)"""

# Transformers comes first: its import registers the classes of this folder (`elmo_hf/auto.py`), and none of
# these files may be half imported then.
import transformers  # noqa: F401
