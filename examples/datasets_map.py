"""A column of vectors for the texts of a data set, by `datasets.map`.

python examples/datasets_map.py --model my-elmo --data reviews.jsonl --output my-vectors
datasets.load_from_disk("my-vectors")[0]["vectors"]    # (words, dim)
"""

import argparse

from datasets import load_dataset

from elmo_hf import TINY, Embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=TINY, help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--data", required=True, help="JSON lines")
    parser.add_argument("--column", default="text", help="the texts (text)")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    texts = load_dataset("json", data_files=options.data, split="train").with_format("arrow")
    embed = Embed(options.model, layers="average", column=options.column)
    texts.map(embed, batched=True).with_format(None).save_to_disk(options.output)


if __name__ == "__main__":
    main()
