#!/usr/bin/env bash
# The runs behind the ablation notebooks, after `prepare.py` (see there): one CSV for each in notebooks/data/.
# A run that is in its CSV is not repeated. Usage: notebooks/sweeps.sh [NAME...], from a folder that holds small/; with
# names, only those sweeps.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wanted=" $* "

sweep() {
  local name=$1
  shift
  [[ "$wanted" == "  " || "$wanted" == *" $name "* ]] || return 0
  python "$here/../run_train.py" "$here/small.json" --table1 --cache small/cache --out "small/runs/$name" \
    --evaluate small/dev/* "$@"
  cp "small/runs/$name/results.csv" "$here/data/$name.csv"
}

one="--contexts own --seeds 1"
both="--contexts own random --seeds 1 --cells contextual/contextual"

sweep table1 --contexts own random null
sweep clusters $one --cells contextual/biencoder --sweep cluster_size=16,64,256,2048 filter=stored,off
sweep batch_sizes $one --cells random/biencoder contextual/biencoder --sweep batch_size=16,32,128
sweep batch_sizes_unfiltered $one --cells contextual/biencoder --sweep filter=off batch_size=16,32,128
sweep cached $both --architecture cached --sweep model.cached_form=gated,shared
sweep documents $both --sweep context_size=4,64
sweep negatives $one --cells random/biencoder contextual/biencoder --sweep negatives=1
sweep packing $one --cells contextual/biencoder --sweep packing=random cluster_size=16,64
sweep first_stage $both --sweep first_stage=frozen,tied
sweep depth $both --sweep model.first_stage_layers=1
sweep tokens $both --sweep model.tokens_per_document=2,4
sweep epochs $one --cells random/biencoder contextual/biencoder --sweep epochs=0.25,1,2
