#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing (Debian 12), builds, and runs the example: 4 ranks with 2-way expert parallelism
# and ZeRO-3 load share/example/model, train it on the bytes of an English text and save; 2 ranks
# without expert parallelism go on from that file. Usage: share/example/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source share/setup/common.sh
work=$root/build/example
saved_step=150
last_step=200

# on_ranks RANKS EXPERT OUTPUT OPTIONS...: one training job; its messages are the user's to watch.
on_ranks() {
  mpirun -n "$1" "$build/apps/tessera" train share/example/model --data "$work/text.u16" \
    --sequence-length 128 --batch 16 --expert "$2" --dtype f32 --lr 3e-3 --total-steps "$last_step" \
    --output "$work/$3" "${@:4}" </dev/null
}

# loss_at OUTPUT STEP: from that run's metrics.
loss_at() {
  sed -n "s/.*\"step\":$2,.*\"loss\":\([^,}]*\).*/\1/p" "$work/$1/metrics.jsonl"
}

# Entropy of single bytes [nat]: what a model reaches that knows how often each byte occurs and nothing else.
unigram_entropy() {
  perl -0777 -ne '$n = length; $c[$_]++ for unpack "C*", $_;
    for (grep { $_ } @c) { $h -= $_ / $n * log($_ / $n) } printf "%.4f\n", $h' "$work/text.txt"
}

share/setup/debian.sh
build_release tessera
export_mpi_environment
rm -rf "$work"
step "write the text" share/example/make_text.sh "$work"

note "train on 4 ranks, E = 2, to step $saved_step, and save"
on_ranks 4 2 four --steps "$saved_step"
note "go on from that file on 2 ranks, E = 1, to step $last_step"
on_ranks 2 1 two --steps "$last_step" --resume "$work/four"
note "one more step on the first grid, for comparison"
on_ranks 4 2 same --steps "$((saved_step + 1))" --resume "$work/four"

next=$((saved_step + 1))
cat <<END

unigram entropy of the text              $(unigram_entropy) nat per byte
loss at the first step, 4 ranks, E = 2   $(loss_at four 1)
loss at step $saved_step, 4 ranks, E = 2         $(loss_at four "$saved_step")
loss at step $next, 4 ranks, E = 2         $(loss_at same "$next")
loss at step $next, 2 ranks, E = 1         $(loss_at two "$next")
loss at step $last_step, 2 ranks, E = 1         $(loss_at two "$last_step")
loss curves                              build/example/four, build/example/two
END
