"""A column of vectors for the texts of a data set, by `datasets.map`.

python examples/datasets_map.py --model my-elmo --data reviews.jsonl --output my-vectors
datasets.load_from_disk("my-vectors")[0]["vectors"]    # (words, dim)
"""

import argparse
from typing import Any

import torch
from datasets import load_dataset

from elmo_hf import TINY, ElmoModel, ElmoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--data", required=True, help="JSON lines")
    parser.add_argument("--column", default="text", help="the texts (text)")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    model = ElmoModel.from_pretrained(options.model).eval()
    tokenizer = ElmoTokenizer.from_pretrained(options.model)

    def add_vectors(rows: dict[str, Any]) -> dict[str, Any]:
        batch = tokenizer(rows[options.column], padding=True, return_tensors="pt")
        with torch.inference_mode():
            layers = model(**batch, output_hidden_states=True).hidden_states
        average, lengths = torch.stack(layers).mean(dim=0), batch["attention_mask"].sum(dim=1)
        return {"vectors": [row[:length].numpy() for row, length in zip(average, lengths, strict=True)]}

    texts = load_dataset("json", data_files=options.data, split="train")
    texts.map(add_vectors, batched=True, batch_size=32).save_to_disk(options.output)


if __name__ == "__main__":
    main()
