#!/usr/bin/env bash
# elmo-tiny, from the text to the card. The same command again goes on where it stopped.
#
#   bash training/runs/elmo_tiny.sh DATA        # DATA has lm_pretrain/train.books-*.txt.xz, valid.books.txt.xz, ...
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data}
run=runs/elmo-tiny
model=src/elmo_hf/checkpoints/elmo-tiny
text=("$data"/lm_pretrain/train.books-*.txt.xz)

mkdir -p "$run"
[ -f "$run/vocab.txt" ] ||
    elmo-hf vocab "${text[@]}" "$run/vocab.txt" --raw --split-sentences --max-words 25000
accelerate launch --cpu training/pretrain.py --config training/runs/elmo_tiny.yaml --resume auto \
    --data "${text[@]}" --vocab "$run/vocab.txt" --output "$run" \
    --heldout "$data"/lm_pretrain/valid.books.txt.xz "$data"/lm_pretrain/valid.wiki.txt.xz
python training/ship.py "$run/final" "$model" --half
bash training/runs/judge.sh elmo-tiny "$run" "$model" "$data" "${text[@]}"
