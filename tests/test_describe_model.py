"""`describe_model` reads a checkpoint's files without loading its weights."""

import hashlib
import json
import shutil
import struct

import pytest

from elmo_hf import ElmoForPreTraining
from elmo_hf.loading import describe_model, tensor_shapes
from tests.helpers.card_folders import save_checkpoint

HEADER = json.dumps({"weight": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 4]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        *[b"", b"1234567", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x03" + b"\0" * 7],
        struct.pack("<Q", len(HEADER)) + HEADER + b"0000",
    ],
)
def test_files_that_are_no_weights(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no safetensors file"):
        tensor_shapes(path)


def test_shards_that_the_index_does_not_name_are_not_the_models(tmp_path):
    checkpoint = save_checkpoint(tmp_path / "elmo-test")
    whole = describe_model(checkpoint)
    model = ElmoForPreTraining.from_pretrained(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    model.save_pretrained(checkpoint, max_shard_size="5KB")
    stale = sorted(checkpoint.glob("model-*.safetensors"))[0]
    shutil.copy(stale, checkpoint / "model-00001-of-00099.safetensors")
    description = describe_model(checkpoint)
    assert description["parameters"] == whole["parameters"]
    assert "model-00001-of-00099.safetensors" not in description["files"]


def test_describing_loads_no_weight(tmp_path):
    checkpoint = save_checkpoint(tmp_path / "elmo-test")
    description = describe_model(checkpoint)
    model = ElmoForPreTraining.from_pretrained(checkpoint)
    assert description["parameters"] == model.num_parameters()
    assert description["hidden_size"] == 16
    content = (checkpoint / "model.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    assert description["files"] == {"model.safetensors": {"bytes": len(content), "sha256": sha256}}
