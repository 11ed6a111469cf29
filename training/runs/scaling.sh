#!/usr/bin/env bash
# Measure models for the scaling curve: perplexities, word senses, parts of speech, named entities.
# A result that exists is not measured again; delete its file to do so.
#
#   bash training/runs/scaling.sh DATA elmo-tiny-25 elmo-tiny runs/elmo-tiny/checkpoint-0010750 27520000
#   python -m benchmarks.scaling                 # the table and the picture, from all results
#
# The arguments: the folder of the data, the name of the model, the curve that it is a point of, its folder,
# and how many words it has read, a direction.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data} name=${2:?the name of the model} curve=${3:?the name of its curve}
model=${4:?the folder of the model} words=${5:?how many words it has read}
results=benchmarks/results/scaling/$name

python -m benchmarks.scaling --describe "$model" --name "$name" --curve "$curve" --words "$words"
for text in "$data"/lm_pretrain/valid.{books,wiki}.txt.xz; do
    saved=$results/perplexity-$(basename "$text" .txt.xz).json
    [ -f "$saved" ] && continue
    elmo-hf perplexity "$text" --model "$model" --raw --split-sentences --json > "$saved.unfinished"
    mv "$saved.unfinished" "$saved"
done
[ -f "$results/probes.json" ] ||
    python -m benchmarks.probing --model "$model" --data "$data" --probes senses tags --output "$results/probes.json"
# The tagger's runs are named by the folder of the biLM.
mkdir -p runs/scaling
[ -e "runs/scaling/$name" ] || ln -s "$(realpath "$model")" "runs/scaling/$name"
python -m benchmarks.tables --data "$data" --elmo "runs/scaling/$name" --only scaling
