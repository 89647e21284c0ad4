#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What can go wrong in a training job: each fault ends the job on all ranks, soon, with one message.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
source "$(dirname "${BASH_SOURCE[0]}")/background.sh"

# train NP OPTIONS...: a short run on the golden model.
train() {
  run "$1" train --data "$golden/tokens.npy" --batch 4 --output "$directory/run" --expert 2 "${@:2}"
}

# broken PERL-PROGRAM: a copy of the model whose safetensors file the program has changed.
broken() {
  rm -rf "$directory/broken"
  cp -r "$golden" "$directory/broken"
  perl -0777 -pi -e "$1" "$directory/broken/model.safetensors"
}

# Broken checkpoints: exit code 3 and one message, before any training.
broken 's/.{4096}\z//s' # truncated
train 4 "$directory/broken" --steps 1
expect_code 3
expect_once "model.safetensors"
broken 's/layers\.1\.mlp\.experts\.down_proj"/layers.1.mlp.experts.drop_proj"/' # an expert tensor missing
train 4 "$directory/broken" --steps 1
expect_code 3
expect_once "tessera: error: keys"
expect_error "model.layers.1.mlp.experts.down_proj"
expect_error "model.layers.1.mlp.experts.drop_proj"
broken 's/"dtype":"BF16"/"dtype":"I16" /' # an element type that no weight has
train 4 "$directory/broken" --steps 1
expect_code 3
expect_error "I16"
broken 's/\A.{8}/\xff\xff\xff\xff\xff\xff\xff\x7f/s' # header length beyond the file
train 4 "$directory/broken" --steps 1
expect_code 3
expect_once "model.safetensors"
broken 's/("shape":\[97),64\]/$1,32]/' # a shape that its bytes do not fill
train 4 "$directory/broken" --steps 1
expect_code 3
expect_once "model.safetensors"
broken 's/\[222240,226336\]/[201432,205528]/' # v_proj lies where k_proj does
train 4 "$directory/broken" --steps 1
expect_code 3
expect_once "tessera: error:"
expect_error "inside the tensor before it"

# One rank alone cannot read.
TESSERA_FAULT=unreadable:1 train 4 "$golden" --steps 1
expect_code 3
expect_once "rank 1"
expect_error "model.safetensors"

# The disk is full when a checkpoint is due: nothing is written, the one before it stays.
train 4 "$golden" --steps 2
expect_code 0
before=$(cksum <"$directory/run/step-00000002.h5")
TESSERA_FAULT=diskfull:0 train 4 --resume "$directory/run" --steps 1 --total-steps 9
expect_code 3
expect_once "GiB are free"
[[ $(<"$directory/run/latest") == step-00000002.h5 ]] || complain "latest does not name the old checkpoint"
[[ $(cksum <"$directory/run/step-00000002.h5") == "$before" ]] || complain "the old checkpoint has changed"
[[ -z $(find "$directory/run" -name '*.partial') ]] || complain "a partial file is left"

# A token outside the vocabulary, named with its position before the first step.
printf '\1\0\2\0\3\0\377\377' >"$directory/bad.u16"
run 2 train "$golden" --data "$directory/bad.u16" --sequence-length 4 --steps 1 --output "$directory/bad"
expect_code 3
expect_once "65535"

# One rank has no memory for a step: the job ends at once, with that rank's numbers and what was foretold.
perl -e 'print pack("v*", map { $_ % 97 } 1 .. 524288)' >"$directory/many.u16"
cat >"$directory/short_of_memory" <<'END'
if [[ ${OMPI_COMM_WORLD_RANK-$PMI_RANK} == 1 ]]; then ulimit -d 1000000; fi
exec "$@"
END
command="tessera train with 1 GB on rank 1"
started=$SECONDS
"$mpiexec" -n 2 bash "$directory/short_of_memory" "$tessera" train "$golden" --data "$directory/many.u16" \
  --sequence-length 64 --batch 8192 --steps 1 --output "$directory/run" --deadline 300 \
  >"$directory/stdout" 2>"$directory/stderr" </dev/null
code=$?
output=$(<"$directory/stdout") errors=$(<"$directory/stderr")
expect_code 4
expect_once "[rank 1] no memory for "
expect_error "parameters, gradients and optimizer take"
expect_error "of the node's memory are free"
expect_error "foretells"
((SECONDS - started < 60)) || complain "the other rank waited"

# A rank is killed in the middle of a step.
a_rank_is_killed

# A rank stops answering: the others say where they wait and end.
a_rank_stops
expect_error "deadline passed"

# SIGUSR1 and SIGTERM end in a complete checkpoint and exit code 7; the run goes on from it.
start 4
kill -USR1 "$mpiexec_pid"
ends_within 20
expect_code 7
run 2 inspect "$directory/run/$(<"$directory/run/latest")"
expect_code 0
train 2 --resume "$directory/run" --steps 1 --total-steps 1000000
expect_code 0
expect_error "saved"
start 2
for pid in $(ranks); do kill -TERM "$pid"; done
ends_within 20
expect_code 7
[[ -s $directory/run/latest ]] || complain "no checkpoint"
finish
