#!/usr/bin/env bash
# Measure models for the scaling curve: perplexities, word senses, parts of speech, named entities.
# A result that exists is not measured again; delete its file to do so.
#
#   bash training/runs/scaling.sh DATA elmo-tiny-25 elmo-tiny runs/elmo-tiny/first/checkpoint-0010750 27520000 VECTORS
#   python -m benchmarks.scaling                 # the table and the picture, from all results
#
# The arguments: the folder of the data, the name of the model, the curve that it is a point of, its folder,
# how many words it has read, a direction, and the word vectors of the tagger (glove.6B.50d.txt). Without
# vectors, named entities are left out. The tagger has the dropout and learning rate that were searched with
# elmo-tiny; SEEDS="0" trains it once, not with the seeds 0, 1 and 2.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data} name=${2:?the name of the model} curve=${3:?the name of its curve}
folder=${4:?the folder of the model} words=${5:?how many words it has read} vectors=${6:-}
results=benchmarks/results/scaling/$name

# Results name the model by this link.
model=runs/scaling/$name
mkdir -p runs/scaling
ln -sfn "$(realpath "$folder")" "$model"
python -m benchmarks.scaling --describe "$model" --name "$name" --curve "$curve" --words "$words"
for text in "$data"/lm_pretrain/valid.{books,wiki}.txt.xz; do
    saved=$results/perplexity-$(basename "$text" .txt.xz).json
    [ -f "$saved" ] && continue
    elmo-hf perplexity "$text" --model "$model" --raw --split-sentences --json > "$saved.unfinished"
    mv "$saved.unfinished" "$saved"
done
[ -f "$results/probes.json" ] ||
    python -m benchmarks.probing --model "$model" --data "$data" --probes senses tags --output "$results/probes.json"
[ -z "$vectors" ] ||
    python -m benchmarks.tables --data "$data" --elmo "$model" --vectors "$vectors" --choices-of elmo-tiny \
        --only table1 --tasks ner-ewt --measure --seeds ${SEEDS:-0 1 2}
