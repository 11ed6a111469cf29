#!/usr/bin/env bash
# elmo-small: the text is made ready here, trained on within minutes on a machine with a GPU, and judged here.
#
#   bash training/runs/elmo_small.sh pack DATA      # here: runs/elmo-small/packed/text.aa.xz, text.ab.xz, ... and wheels
#   bash training/runs/elmo_small.sh train          # there, without a network: MINUTES (12) in all
#   bash training/runs/elmo_small.sh judge DATA     # here: perplexities, probes, model card
#   bash training/runs/elmo_small.sh DATA           # all three on one machine
#
# DATA has lm_pretrain/train.*.txt.xz and lm_small/train.wiki.txt.xz, which elmo_tiny_text.py makes where they are
# missing, and what judge.sh reads. `pack` splits the text into words once, and writes it in files of some 45 megabytes, of
# PART_SIZE (160M) before compression. To the other machine go this repository and runs/elmo-small/packed. From there
# comes runs/elmo-small/back: the model, its log, and the speed of the text's reader, cut into files of 15 MB. What is
# done is not done again.
#
# WHEELS are packages that the other machine lacks, PYTHON is its version. For a trial: RUN, CONFIG, KEEP_SECONDS.
set -euo pipefail
cd "$(dirname "$0")/../.."
run=${RUN:-runs/elmo-small} config=${CONFIG:-training/runs/elmo_small.yaml}
packed=$run/packed trained=$run/trained back=$run/back
heldout=(valid.books valid.wiki)
wheels=${WHEELS-zstandard google-crc32c}

pack() {
    local data=${1:?the folder of the data}
    [ -d "$data/lm_pretrain" ] || python training/runs/elmo_tiny_text.py "$data"
    local text=("$data"/lm_pretrain/train.*.txt.xz "$data"/lm_small/train.wiki.txt.xz)
    mkdir -p "$run"
    [ -f "$run/vocab.counts.tsv" ] || python -m elmo_hf.corpus.encoded "${text[@]}" "$run/encoded" --raw \
        --split-sentences --workers "$(nproc)" --vocab "$run/vocab.txt" --max-words 100000
    if [ ! -d "$packed" ]; then
        rm -rf "$packed.unfinished"
        mkdir "$packed.unfinished"
        # shellcheck disable=SC2016
        tar -c -C "$run" encoded |
            split -b "${PART_SIZE:-160M}" --filter='xz -9 > "$FILE.xz"' - "$packed.unfinished/text."
        mv "$packed.unfinished" "$packed"
    fi
    cp "$run/vocab.txt" "$run/vocab.counts.tsv" "$packed"
    for name in "${heldout[@]}"; do cp "$data/lm_pretrain/$name.txt.xz" "$packed"; done
    if [ -n "$wheels" ] && [ ! -d "$packed/wheels" ]; then
        # shellcheck disable=SC2086
        python -m pip download -q --no-deps --only-binary=:all: -d "$run/wheels.unfinished" \
            --python-version "${PYTHON:-3.12}" --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
            --platform manylinux2014_x86_64 $wheels
        mv "$run/wheels.unfinished" "$packed/wheels"
    fi
}

extract() {  # FOLDER: of the tar on standard input, in the run's folder when all of it is there
    mkdir -p "$run/unfinished" && tar -x -C "$run/unfinished" && mv "$run/unfinished/$1" "$run/$1"
}

unpack() {  # with all processors, as reading xz is slow
    local pieces=$run/pieces
    mkdir -p "$pieces"
    printf '%s\n' "$packed"/text.*.xz | xargs -P "$(nproc)" -I{} python3 -c '
import lzma, pathlib, shutil, sys
with lzma.open(sys.argv[1]) as packed, open(pathlib.Path(sys.argv[2], pathlib.Path(sys.argv[1]).stem), "wb") as piece:
    shutil.copyfileobj(packed, piece, 2**20)' {} "$pieces"
    cat "$pieces"/text.* | extract encoded
    rm -r "$pieces"
}

train() {
    SECONDS=0
    export PYTHONPATH=$PWD/src:$run/site${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
    [ -d "$run/site" ] || [ ! -d "$packed/wheels" ] ||
        python3 -m pip install -q --no-index --no-deps --no-compile --target "$run/site" "$packed"/wheels/*.whl
    [ -d "$run/encoded" ] || unpack
    [ -f "$run/feed.json" ] || python3 -m benchmarks.speed.encoded_feed "$run/encoded" --vocab "$packed/vocab.txt" \
        --config "$config" --output "$run/feed.json"
    # The last evaluation and writing the weights come after the minutes of the run.
    local minutes
    minutes=$(python3 -c "print(max(0.05, ${MINUTES:-12} - ($SECONDS + ${KEEP_SECONDS:-60}) / 60))")
    echo "ready after $SECONDS seconds; $minutes minutes of training"
    [ -d "$run/train/final" ] || python3 training/pretrain.py --config "$config" --resume auto --output "$run/train" \
        --max-minutes "$minutes" --data "$run/encoded" --vocab "$packed/vocab.txt" \
        --heldout "$packed/valid.books.txt.xz" "$packed/valid.wiki.txt.xz"
    echo "trained after $SECONDS seconds"
    python3 -m elmo_hf.pretraining.publish "$run/train/final" "$trained" --half --shards 15MB
    python3 -m elmo_hf.pretraining.summary "$run/train" -o "$trained/run.json"
    cp "$run/train/log.jsonl" "$run/feed.json" "$trained"
    mkdir -p "$back"
    rm -f "$back"/trained.tar.*
    tar -c -C "$run" trained | split -b 15000000 - "$back/trained.tar."
    echo "$back is complete after $SECONDS seconds"
}

judge() {
    local data=${1:?the folder of the data} results=hub_cards/elmo-small/results model=$run/checkpoint
    [ -d "$trained" ] || cat "$back"/trained.tar.* | extract trained
    [ -d "$model" ] || python -m elmo_hf.pretraining.publish "$trained" "$model" --code --shards 50MB
    mkdir -p "$results"
    cp "$trained/run.json" "$trained/feed.json" "$results"
    elmo-hf plot "$trained/log.jsonl" "$results/log.png"
    bash training/runs/judge.sh elmo-small "$run/none" "$model" "$data"
    echo "elmo-hf push $model ORG/elmo-small --facts hub_cards/elmo-small/facts.yaml --results $results"
}

case ${1:?pack DATA, train, judge DATA, or DATA} in
pack | train | judge) "$@" ;;
*) pack "$1"; train; judge "$1" ;;  # no `&&`, with which a failing step of a function would not end it
esac
