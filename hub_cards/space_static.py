"""Write the folder of the page that runs a model in the browser: a Static Space, or for any web server.

    python hub_cards/space_static.py my-page/                      # elmo-tiny
    python hub_cards/space_static.py my-page/ --model my-elmo/
    python -m http.server --directory my-page/                     # to look at it

The folder has the files of `hub_cards/space-static/`, the model as ONNX, and the files of onnxruntime-web
that run it. These come from npm (`npm pack`), in the version and with the checksum below, not from a CDN: so
a visitor's browser asks no other host than the page's own. `--runtime` takes an archive that is there.
"""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from elmo_hf import TINY
from elmo_hf.demo.examples import EXAMPLES
from elmo_hf.demo.reading import MAX_CHARACTERS, MAX_WORDS
from elmo_hf.errors import ElmoError, one_sentence, reason_of
from elmo_hf.export.onnx import export_onnx
from elmo_hf.files import new_folder
from elmo_hf.loading import load
from elmo_hf.model.modeling_elmo import ElmoModel

PAGE = Path(__file__).resolve().parent / "space-static"
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# Of the archive, under names that every web server serves as JavaScript.
RUNTIME_FILES = {
    "ort.wasm.min.mjs": "ort.wasm.min.js",
    "ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.js",
    "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
NOTICE = f"""\
These files are {RUNTIME} from npm, by Microsoft Corporation, under the MIT licence
(https://github.com/microsoft/onnxruntime/blob/main/LICENSE). Two of them ended in .mjs.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="the folder to write; it must not exist, or be empty")
    parser.add_argument("--model", default=TINY, help="a folder, or a name on the Hub; default: elmo-tiny")
    parser.add_argument("--runtime", type=Path, help=f"the archive of {RUNTIME}; default: fetched by npm")
    options = parser.parse_args()
    build(options.output, options.model, options.runtime)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"Wrote {options.output} ({size / 1e6:.1f} MB); its README.md says how to publish it.")


def build(output: Path, model: str | Path = TINY, runtime: Path | None = None) -> None:
    """Write the folder, whole or not at all.

    Raises:
        ElmoError: the model cannot be loaded or exported, or has word ids, or the archive is another one.
    """
    with new_folder(output) as folder, tempfile.TemporaryDirectory() as temporary:
        for path in sorted(PAGE.iterdir()):
            shutil.copyfile(path, folder / path.name)
        settings = add_model(model, folder, Path(temporary) / "exported")
        add_runtime(runtime or fetch_runtime(Path(temporary)), folder / "onnxruntime")
        settings["files"] = {
            name: {"path": path, "bytes": (folder / path).stat().st_size}
            for name, path in [
                ("model", "model.onnx"),
                ("runtime", "onnxruntime/ort-wasm-simd-threaded.wasm"),
            ]
        }
        content = json.dumps(settings, ensure_ascii=False, indent=1)
        (folder / "settings.json").write_text(content + "\n", encoding="utf-8")


def add_model(name: str | Path, folder: Path, exported: Path) -> dict[str, Any]:
    """Export the model; return what the page must know about it."""
    model, tokenizer = load(name, ElmoModel)
    config = model.config
    if config.token_encoder != "characters":
        raise ElmoError(f"{name} reads word ids, and the page has characters; choose a model of characters.")
    if not config.reads_bytes:
        raise ElmoError(f"{name} reads letters of its own, and the page makes bytes; choose another model.")
    export = export_onnx(name, exported, layers="all")
    shutil.copyfile(exported / "model.onnx", folder / "model.onnx")
    return {
        "name": Path(export.model).name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "outputs": export.outputs,
        "mixable": list(range(config.projection_dim != config.output_dim, len(export.outputs))),
        "length": tokenizer.max_characters_per_token,
        "splitter": tokenizer.word_splitter,
        "special": tokenizer.all_special_tokens,
        "limits": {"characters": MAX_CHARACTERS, "words": MAX_WORDS},
        "examples": EXAMPLES,
    }


def fetch_runtime(folder: Path) -> Path:
    """The archive of onnxruntime-web, from npm."""
    npm = shutil.which("npm")
    hint = f"fetch {RUNTIME} by `npm pack` elsewhere, and pass the archive as --runtime."
    if npm is None:
        raise ElmoError(f"there is no npm here; {hint}")
    options = ["--pack-destination", str(folder), "--ignore-scripts", "--prefer-offline", "--silent"]
    command = [npm, "pack", RUNTIME, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    archive = next(folder.glob("*.tgz"), None)
    if done.returncode or archive is None:
        raise ElmoError(f"npm cannot fetch the runtime (exit status {done.returncode}); {hint}")
    return archive


def add_runtime(archive: Path, folder: Path) -> None:
    """Copy the files that the page needs, if the archive is the right one."""
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise ElmoError(f"{archive} cannot be read ({reason_of(error)}); see --runtime.") from error
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != RUNTIME_SHA512:
        raise ElmoError(f"{archive} is not the archive of {RUNTIME}; fetch it by `npm pack {RUNTIME}`.")
    folder.mkdir()
    with tarfile.open(archive) as files:
        for name, new_name in RUNTIME_FILES.items():
            file = files.extractfile(f"package/dist/{name}")
            assert file is not None
            (folder / new_name).write_bytes(file.read())
    (folder / "NOTICE").write_text(NOTICE, encoding="utf-8")


if __name__ == "__main__":
    with one_sentence("space_static.py"):
        main()
