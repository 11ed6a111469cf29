#!/usr/bin/env bash
# elmo-tiny, from the text to the model card. The same command resumes where it stopped.
#
#   bash training/runs/elmo_tiny.sh DATA
#
# DATA is the folder of the text, which elmo_tiny_text.py makes if it is not there, and of what judge.sh reads; what
# is missing of that is left out of the card. Training takes hours.
set -euo pipefail
cd "$(dirname "$0")/../.."
data=${1:?the folder of the data}
run=runs/elmo-tiny
model=src/elmo_hf/checkpoints/elmo-tiny
text=$run/text

[ -d "$data/lm_pretrain" ] || python training/runs/elmo_tiny_text.py "$data"
# The sections of plain files are read in a mixed order; packed ones can only be read from their start.
mkdir -p "$text"
for file in "$data"/lm_pretrain/train.*.txt.xz "$data"/lm_small/train.wiki.txt.xz; do
    plain=$text/$(basename "$(dirname "$file")").$(basename "$file" .xz)
    [ -f "$plain" ] || { xz -dc "$file" > "$plain.unfinished" && mv "$plain.unfinished" "$plain"; }
done
[ -f "$run/vocab.txt" ] ||
    elmo-hf vocab "$text"/*.txt "$run/vocab.txt" --raw --split-sentences --max-words 32000
# All of the text once, and a half of it again.
heldout=("$data"/lm_pretrain/valid.books.txt.xz "$data"/lm_pretrain/valid.wiki.txt.xz)
[ -d "$run/first/final" ] ||
    accelerate launch --cpu training/pretrain.py --config training/runs/elmo_tiny.yaml --resume auto \
        --data "$text"/*.txt --vocab "$run/vocab.txt" --output "$run/first" --heldout "${heldout[@]}"
python -m elmo_hf.pretraining.summary "$run/first" -o benchmarks/results/training/elmo_tiny_first.json
accelerate launch --cpu training/pretrain.py --config training/runs/elmo_tiny_second.yaml --resume auto \
    --start "$run/first/final" --data "$text"/*.txt --output "$run/second" --heldout "${heldout[@]}"
python -m elmo_hf.pretraining.publish "$run/second/final" "$model" --half
# Other shapes and recipes, trained for the same time on the text of lm_small.sh, with its vocabulary.
small=runs/lm-small shapes=hub_cards/elmo-tiny/results/shapes.json
[ -f "$small/vocab.txt" ] || bash training/runs/lm_small.sh "$data"
[ -f "$shapes" ] || python -m benchmarks.speed.shapes --data "$data"/lm_small/train.wiki.txt.xz --raw --split-sentences \
    --vocab "$small/vocab.txt" --heldout "$small/heldout.txt" --minutes 2 --output "$shapes"
bash training/runs/judge.sh elmo-tiny "$run/second" "$model" "$data" "$text"/*.txt
