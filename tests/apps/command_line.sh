#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Help, version and usage errors, with and without a launcher.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"

for subcommand in import train probe inspect doctor; do
  run 0 "$subcommand" --help
  expect_code 0
  expect_output "tessera $subcommand [OPTIONS]" # CLI11 2.3 writes "Usage:" before it
  expect_output "Examples:"
done
run 0 --help
expect_code 0
expect_output "Exit codes:"
run 0 --version
expect_code 0
expect_output "tessera "

# Help and version print once however many ranks there are, and need no MPI.
run 2 doctor --help
expect_code 0
expect_once "tessera doctor [OPTIONS]"
run 2 --version
expect_code 0
expect_once "tessera "

for np in 0 2; do
  run "$np" doctor --no-such-option
  expect_code 2
  expect_once "tessera: error: usage:"
  expect_error "--no-such-option"
  expect_error "tessera doctor --help"
  run "$np" inspect
  expect_code 2
  expect_error "model is required"
  run "$np"
  expect_code 2
  expect_once "tessera: error: usage: A subcommand is required"
done
run 0 doctor --expert two
expect_code 2
expect_error "'two' is no number above 0"
run 0 doctor --expert inf
expect_code 2
expect_error "'inf' is no number above 0"
for seconds in 0 1e-9 2e9 inf nan; do
  run 0 doctor --deadline "$seconds"
  expect_code 2
  expect_error "'$seconds' is no number of seconds from 0.001 to 1e9"
done
run 2 doctor --expert 3
expect_code 2
expect_once "tessera: error: usage:"
run 2 inspect "$directory/absent"
expect_code 3
expect_once "tessera: error: file:"
finish
