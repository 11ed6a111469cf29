"""A coreference model evaluated on GAP (Webster et al. 2018): which of two names does a pronoun mean?

    FILES="--gap gap-test.tsv --output runs/coref/gap.json"
    python training/evaluate_gap.py --model runs/coref/seed-0 $FILES --vectors glove.txt

Each text has a pronoun and two names, A and B. The model gets the text, not the names; the pronoun means a
name if its cluster has a mention with all words of the name, and not all of the other's. `accuracy` is the
share of pronouns with both answers right; F1 is GAP's own, over the answers "it means this name". A model
that was trained with word vectors needs them (`--vectors`) for the words of GAP's texts, too.
"""

import argparse
from pathlib import Path

import evaluate

from elmo_hf import ElmoForCoreferenceResolution, metrics
from elmo_hf.errors import ElmoError
from elmo_hf.files import write_json
from elmo_hf.finetuning.coreference import read_gap, resolved
from elmo_hf.finetuning.evaluation import check_output
from elmo_hf.finetuning.flags import at_least
from elmo_hf.finetuning.run import run, versions
from elmo_hf.finetuning.word_vectors import add_words
from elmo_hf.loading import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a folder that finetune_coref.py wrote")
    parser.add_argument("--gap", required=True, help="GAP's file, .tsv or .tsv.xz")
    parser.add_argument("--output", required=True, help="a JSON file for the scores")
    help = "the word vectors with which the model was trained"
    parser.add_argument("--vectors", metavar="FILE", help=help)
    parser.add_argument("--limit", type=at_least(1), help="read only the first texts")
    flags = parser.parse_args()
    output = Path(flags.output)
    if output.is_dir():
        raise ElmoError(f"{output} is a folder; name a file for the scores by --output.")
    check_output(output.parent)
    model, tokenizer = load(flags.model, ElmoForCoreferenceResolution)
    examples = read_gap(Path(flags.gap), tokenizer.word_splitter)[: flags.limit]
    if flags.vectors:
        words = (word for example in examples for sentence in example["sentences"] for word in sentence)
        tokenizer = add_words(model, tokenizer, words, flags.vectors)
    pronouns = evaluate.load(metrics.path("pronouns"), keep_in_memory=True)
    for example in examples:
        clusters = model.predict(example["sentences"], tokenizer)
        pronouns.add(prediction=resolved(clusters, example), reference=example["gold"])
    scores = pronouns.compute()
    write_json(output, {"flags": vars(flags), "scores": scores, "versions": versions()})
    print(scores)


if __name__ == "__main__":
    run(main)
