#!/usr/bin/env bash
# elmo-tiny, from the text to the card. The same command again goes on where it stopped.
#
#   bash training/runs/elmo_tiny.sh DATA        # DATA has lm_pretrain/train.books-*.txt.xz, valid.books.txt.xz, ...
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data}
run=runs/elmo-tiny
results=hub_cards/elmo-tiny/results
model=src/elmo_hf/checkpoints/elmo-tiny
text=(--raw --split-sentences)
heldout=("$data"/lm_pretrain/valid.books.txt.xz "$data"/lm_pretrain/valid.wiki.txt.xz)

mkdir -p "$run" "$results"
[ -f "$run/vocab.txt" ] ||
    elmo-hf vocab "$data"/lm_pretrain/train.books-*.txt.xz "$run/vocab.txt" "${text[@]}" --max-words 25000
accelerate launch --cpu training/pretrain.py --config training/runs/elmo_tiny.yaml --resume auto \
    --data "$data"/lm_pretrain/train.books-*.txt.xz --vocab "$run/vocab.txt" --heldout "${heldout[@]}" \
    --output "$run"
python training/ship.py "$run/final" "$model"
