"""Doors of a model's folder that is loaded."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from elmo_hf import ElmoForPreTraining, ElmoModel
from elmo_hf.convert import convert_to_bilm
from elmo_hf.loading import load, load_language_model
from tests.fuzz import folders, good, json_values, safetensors_files
from tests.fuzz.door import Case, Door
from tests.fuzz.json_values import Raw, every


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


# ---- a folder that is loaded


def enter_folder(case: Case, folder: Path | None = None) -> object:
    """As commands do: the backbone or the language model reads a sentence, or is converted back."""
    folder = folder or case.input
    if case.number % 8 == 7:
        return convert_to_bilm(folder, case.output / "bilm")
    if case.number % 4:
        model, tokenizer = load(folder, ElmoModel)
    else:
        model, tokenizer = load_language_model(folder)
    text = tokenizer(["He sat ."], return_tensors="pt")
    with torch.no_grad():
        model.base_model(**text)
    return marks_of(model) + "\n".join(tokenizer.get_vocab()).encode("utf-8", "replace")


def marks_of(model: ElmoModel | ElmoForPreTraining) -> bytes:
    return b"".join(tensor.float().numpy().tobytes() for tensor in model.state_dict().values())


BIG = [2**10, 2**16, 2**24, 2**31, 2**40, 10**6, 10**9, 0, -1, True, 2.5, "8", None]
CONFIG_SIZES = ["lstm_dim", "projection_dim", "num_hidden_layers", "char_embedding_dim", "num_highway_layers"]
CONFIG_SIZES += ["num_labels"]
CONFIG_SIZES += ["vocab_size", "max_characters_per_token", "pad_token_id", "bos_token_id", "hidden_size"]
CONFIG: list[tuple[str, Any]] = [(name, value) for name in CONFIG_SIZES for value in BIG]
CONFIG += every("char_filters", [[1, 2**31]], [[10**6, 2]], [[0, 1]], [[1, 1]] * 10_000, [[1]], [1, 2], [])
CONFIG += every("dtype", "evil", "float16", "int32", "float8_e4m3fn", "qint8", ["float32"], 5, "torch.nn")
CONFIG += every("torch_dtype", "evil", {"": "float16"}, "bfloat16")
CONFIG += every("auto_map", {"AutoModel": "evil.Evil"}, {"AutoConfig": "x/y--evil.Evil"}, [1], "evil.Evil")
CONFIG += every(
    "quantization_config", {"quant_method": "bitsandbytes"}, {"quant_method": "gptq"}, {}, "x", [1]
)
CONFIG += every("_attn_implementation", "kernels-community/x") + every("attn_implementation", "evil")
CONFIG += every("_name_or_path", "/etc/passwd")
CONFIG += every("id2label", {str(number): "x" for number in range(100_000)}, {"a": "b"}, [1])
CONFIG += every("label2id", {"a": "b"}, 5) + every("token_encoder", "words", ["words"])
CONFIG += every("vocab_size", 9) + every("model_type", "bert", "", None, ["elmo"], "ELMO", "../elmo", 5)
CONFIG += every("architectures", ["Evil"], "ElmoModel", [5], [], ["BertModel"])
CONFIG += every("transformers_version", "99") + every("problem_type", "evil")
CONFIG += every("pruned_heads", {"a": [1]}) + every("task_specific_params", 5)
CONFIG += every("tie_word_embeddings", True) + every("is_encoder_decoder", True) + every("torchscript", True)
CONFIG += every("return_dict", "x") + every("adapter", 1) + every("base_model_tp_plan", {"x": "colwise"})
CONFIG += every("gguf_file", "x") + every("text_config", {"a": 1}) + every("device_map", "auto")
CONFIG += every("char_activation", "evil") + every("cell_clip", Raw("NaN")) + every("proj_clip", -1)
CONFIG += every("dropout", 5) + every("generation_config", {})
TOKENIZER: list[tuple[str, Any]] = [
    ("vocab_file", f"../../outside/secret{end}") for end in (".txt", ".json", ".bin")
]
TOKENIZER += every("vocab_file", "/etc/passwd", "/dev/zero", "/proc/self/environ", ["x"], 5, "..")
TOKENIZER += every("model_max_length", [1], "x", -1, 0, 2**70, Raw("NaN"), 1.5)
TOKENIZER += every("max_characters_per_token", 10**9, 0, -1, "12", 12.5, None, [12], 50)
TOKENIZER += every("auto_map", {"AutoTokenizer": ["evil.Evil", None]}, 5)
TOKENIZER += every("tokenizer_class", "Evil", "BertTokenizer", 5) + every("word_splitter", "evil", ["penn"])
TOKENIZER += every(
    "added_tokens_decoder",
    {"5": {"content": "x"}},
    {"a": 1},
    [1],
    {"-1": {"content": "y"}},
    {str(2**40): {"content": "z", "special": True}},
)
TOKENIZER += every("chat_template", "{{ 1/0 }}")
TOKENIZER += every("extra_special_tokens", {"a": "b"}, ["c"] * 1000, 5, {"pad_token": 5})
TOKENIZER += [
    (f"{name}_token", value)
    for name in ("bos", "unk", "pad")
    for value in (5, "", None, [1], {"content": 5}, "x" * 10**6)
]
TOKENIZER += every("padding_side", "up") + every("truncation_side", 5) + every("processor_class", "Evil")
TOKENIZER += every("name_or_path", "/etc/passwd") + every("init_inputs", ["/etc/passwd"])
TOKENIZER += every("__class__", "x") + every("self", 1) + every("backend", "evil")
TOKENIZER += every("fast_tokenizer_files", [1])


def damage_config(case: Case) -> str:
    if case.rng.random() < 0.08:
        return folders.damage(case.rng, case.input, None, ["config.json"])
    add_code(case)
    return json_values.damage_file(case.rng, case.input / "config.json", CONFIG, case.outside)


def damage_tokenizer(case: Case) -> str:
    names = ["tokenizer_config.json", "vocab.txt"]
    if case.rng.random() < 0.1:
        return folders.damage(case.rng, case.input, None, names)
    add_code(case)
    if case.rng.random() < 0.1:
        name = case.rng.choice(
            ["special_tokens_map.json", "added_tokens.json", "tokenizer.json", "chat_template.jinja"]
        )
        shutil.copyfile(case.input / "tokenizer_config.json", case.input / name)
        names[0] = name
    note = json_values.damage_file(case.rng, case.input / names[0], TOKENIZER, case.outside)
    if case.rng.random() < 0.2:
        (case.input / "vocab.txt").unlink()
        note += "; no vocab.txt"
    return note


def add_code(case: Case) -> None:
    """The file that an auto_map of these lists may name."""
    canary = case.folder.parent / "canary"
    (case.input / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")


def damage_safetensors(case: Case) -> str:
    path = case.input / "model.safetensors"
    if case.rng.random() < 0.08:
        return folders.damage(case.rng, case.input, None, [path.name])
    if case.rng.random() < 0.04:
        return only_pickles(case, path)
    return safetensors_files.damage(case.rng, path)


def only_pickles(case: Case, path: Path) -> str:
    evil = pickle.dumps(Evil(case.folder.parent / "canary"))
    name = case.rng.choice(
        ["pytorch_model.bin", "model.safetensors", "adapter_model.bin", "model.ckpt", "tf_model.h5"]
    )
    path.unlink()
    if case.rng.random() < 0.5:
        torch.save({"x": Evil(case.folder.parent / "canary")}, case.input / name)
    else:
        (case.input / name).write_bytes(evil)
    return f"only a pickle, {name}"


DOORS = [
    Door("config", good.save_model, damage_config, enter_folder),
    Door("tokenizer", good.save_model, damage_tokenizer, enter_folder),
    Door("safetensors", good.save_model, damage_safetensors, enter_folder),
]
