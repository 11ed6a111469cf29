#!/usr/bin/env bash
# elmo-small, from the text to the model card, on a GPU if there is one. The same command resumes where it stopped.
#
#   bash training/runs/elmo_small.sh DATA       # DATA has lm_pretrain/train.*.txt.xz, lm_small/train.wiki.txt.xz, ...
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data}
run=runs/elmo-small
model=$run/checkpoint
text=("$data"/lm_pretrain/train.*.txt.xz "$data"/lm_small/train.wiki.txt.xz)

mkdir -p "$run"
[ -f "$run/vocab.txt" ] ||
    elmo-hf vocab "${text[@]}" "$run/vocab.txt" --raw --split-sentences --min-count 5
accelerate launch training/pretrain.py --config training/runs/elmo_small.yaml --resume auto \
    --data "${text[@]}" --vocab "$run/vocab.txt" --output "$run" \
    --heldout "$data"/lm_pretrain/valid.books.txt.xz "$data"/lm_pretrain/valid.wiki.txt.xz
python -m elmo_hf.pretraining.publish "$run/final" "$model" --code --shards 50MB
bash training/runs/judge.sh elmo-small "$run" "$model" "$data"
echo "elmo-hf push $model ORG/elmo-small --facts hub_cards/elmo-small/facts.yaml --results hub_cards/elmo-small/results"
