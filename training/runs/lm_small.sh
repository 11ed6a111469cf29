#!/usr/bin/env bash
# One pass over 3.6 million words of Wikipedia, in about half an hour on two cores. Its log and picture are in
# benchmarks/results/training/lm_small. The same command resumes where it stopped.
#
#   bash training/runs/lm_small.sh DATA        # DATA has lm_small/train.wiki.txt.xz, lm_pretrain/valid.wiki.txt.xz
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data}
run=runs/lm-small
text=(--raw --split-sentences)

mkdir -p "$run"
xz -dc "$data"/lm_pretrain/valid.wiki.txt.xz | sed -n 1,300p > "$run/heldout.txt"
[ -f "$run/vocab.txt" ] || elmo-hf vocab "$data"/lm_small/train.wiki.txt.xz "$run/vocab.txt" "${text[@]}" --min-count 3
accelerate launch --cpu training/pretrain.py --data "$data"/lm_small/train.wiki.txt.xz "${text[@]}" \
    --vocab "$run/vocab.txt" --heldout "$run/heldout.txt" --output "$run" --resume auto --seed 1 \
    --lstm-dim 512 --projection-dim 128 --char-filters '[[1,16],[2,32],[3,64],[4,128],[5,256]]' \
    --num-highway-layers 1 --rows 64 --restart-rows 0.02 --samples 2048 --epochs 1 \
    --evaluate-every 400 --evaluation-states zero --save-every 400
results=benchmarks/results/training/lm_small
mkdir -p "$results"
cp "$run/log.jsonl" "$results/"
elmo-hf plot "$run" "$results/log.png"
