"""ELMo in a spaCy pipeline: each of spaCy's tokens has the vector of its word in its sentence.

python examples/spacy_component.py --model my-elmo --output my-pipeline
spacy.load("my-pipeline")
"""

import argparse

import spacy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="an ELMo's folder (elmo-tiny)")
    parser.add_argument("--output", required=True, help="the folder to write")
    options = parser.parse_args()
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("elmo", config={"model": options.model})
    nlp.to_disk(options.output)  # with the ELMo
    doc = nlp("He didn't sit on the bank. The bank lent him money.")
    for token in doc:
        print(f"{token.text:>8}", *(f"{number:+.3f}" for number in token.vector[:6]))
    print("The two banks:", round(doc[6].similarity(doc[9]), 3))


if __name__ == "__main__":
    main()
