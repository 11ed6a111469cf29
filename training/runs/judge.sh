#!/usr/bin/env bash
# Measure all results of a model's card: its run, perplexities, probes, adaptation to other domains.
# A result that exists is not measured again; delete its file to do so. What needs a set that DATA lacks is left out
# with a word: wsd and ud_english_ewt for the probes (see benchmarks/README.md), domain_movie and ner_btc for adaptation.
#
#   bash training/runs/judge.sh NAME RUN MODEL DATA [TEXT ...]     # TEXT: training text of the 5-gram baseline
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:?the folder in hub_cards} run=${2:?the folder of the run} model=${3:?the folder of the model}
data=${4:?the folder of the data}
shift 4
results=hub_cards/$name/results
form=(--raw --split-sentences)
heldout=("$data"/lm_pretrain/valid.books.txt.xz "$data"/lm_pretrain/valid.wiki.txt.xz)

to_measure() {  # RESULT FOLDER ...: whether a result is missing, and DATA has the folders that it needs
    local folder
    [ ! -f "$1" ] || return 1
    for folder in "${@:2}"; do
        [ -d "$data/$folder" ] || { echo "$1 is left out, as $data/$folder does not exist." >&2; return 1; }
    done
}

mkdir -p "$results"
# The run's folder may be gone by now; its results stay.
[ ! -d "$run" ] || python -m elmo_hf.pretraining.summary "$run" -o "$results/run.json"
[ ! -d "$run" ] || elmo-hf plot "$run" "$results/log.png"
for text in "${heldout[@]}"; do
    saved=$results/perplexity-$(basename "$text" .txt.xz).json
    [ -f "$saved" ] && continue
    elmo-hf perplexity "$text" --model "$model" "${form[@]}" --json > "$saved.unfinished"
    mv "$saved.unfinished" "$saved"
done
[ $# = 0 ] || [ -f "$results/kneser_ney.json" ] ||
    python -m benchmarks.language_models.kneser_ney --data "$@" --vocab "$model/vocab.txt" --heldout "${heldout[@]}" "${form[@]}" \
        --output "$results/kneser_ney.json"
if to_measure "$results/probes.json" wsd ud_english_ewt; then
    python -m benchmarks.probing --model "$model" --data "$data" --output "$results/probes.json"
fi
if to_measure "$results/domain.json" domain_movie ner_btc; then
    python -m benchmarks.language_models.domain --model "$model" --output "$results/domain.json" --domains \
        movies="$data"/domain_movie/movie_reviews.txt.xz \
        tweets="$(printf '%s,' "$data"/ner_btc/?.conll | sed 's/,$//')"
fi
python hub_cards/render.py
