"""The facts of a converted model's card: what a conversion knows, and what only people know as TODO."""

import json

TEMPLATE = """\
# What no command knows about this model. Replace every TODO; then `elmo-hf card` writes the model card.
kind: converted
name: {name}
title: {name}
summary: >-
  TODO what the model is, and for whom
languages: [TODO a code such as en]
licence: TODO of the weights, such as apache-2.0
licence_note: TODO what the licence allows and asks for
data:
  - name: TODO the text that it was trained on
    licence: TODO of the text
    description: TODO what it is
limits:
  - TODO what it cannot do
authors: [TODO who converted it]
source:
  title: TODO the original model
  url: TODO where its files are
  authors: [TODO who trained it]
  licence: TODO of its files
"""


def facts_of(name: str) -> str:
    """The content of facts.yaml for a model of this name."""
    return TEMPLATE.format(name=json.dumps(name, ensure_ascii=False))
