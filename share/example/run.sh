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
    --sequence-length 128 --batch 16 --expert "$2" --dtype f32 --lr 3e-3 --steps "$last_step" \
    --save-every "$saved_step" --output "$work/$3" "${@:4}" </dev/null
}

# loss_at OUTPUT STEP: from that run's metrics.
loss_at() {
  sed -n "s/^{\"step\":$2,\"loss\":\([^,}]*\).*/\1/p" "$work/$1/metrics.jsonl"
}

# Entropy of single bytes [nat]: the loss of a model that knows how often each byte occurs and nothing else.
unigram_entropy() {
  perl -0777 -ne '$n = length; $c[$_]++ for unpack "C*", $_;
    for (grep { $_ } @c) { $h -= $_ / $n * log($_ / $n) } print $h' "$work/text.txt"
}

share/setup/debian.sh
build_release tessera
export_mpi_environment
rm -rf "$work"
step "write the text" share/example/make_text.sh "$work"

note "train on 4 ranks, E = 2, to step $last_step, and save on the way at step $saved_step"
on_ranks 4 2 four
saved=$work/four/$(printf 'step-%08d.h5' "$saved_step")
note "go on from step $saved_step on 2 ranks, E = 1"
on_ranks 2 1 two --resume "$saved"

entropy=$(unigram_entropy)
printf '\n%-42s %8s %8s\n' "loss [nat per byte]" "4 ranks" "2 ranks"
printf '%-42s %8.5f\n' "step 1" "$(loss_at four 1)" "step $saved_step, saved" "$(loss_at four "$saved_step")"
for at in $((saved_step + 1)) $((saved_step + 10)) "$last_step"; do
  printf '%-42s %8.5f %8.5f\n' "step $at" "$(loss_at four "$at")" "$(loss_at two "$at")"
done
printf '%-42s %8.5f\n' "entropy of single bytes in the text" "$entropy"
printf 'Loss curves: %s\n' "$work/four/loss.png" "$work/two/loss.png"

# The promise of the example, checked.
perl -e 'my ($entropy, $first, $second, $last) = @ARGV;
  die "tessera: error: the loss is not far below the entropy\n" if $last > 0.7 * $entropy;
  die "tessera: error: the resumed run has another loss\n" if abs($first - $second) > 1e-5 * $first' \
  "$entropy" "$(loss_at four $((saved_step + 1)))" "$(loss_at two $((saved_step + 1)))" "$(loss_at two "$last_step")"
