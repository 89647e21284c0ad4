#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Options from a TOML file.
source "$(dirname "${BASH_SOURCE[0]}")/check.sh"
config=$directory/run.toml

cat >"$config" <<TOML
# one table per subcommand
[inspect]
model = "$source_dir/tests/golden/mini3"   # a positional argument
json = true
expert = 2

[doctor]
expert = 2
deadline = 12.5
TOML
run 0 inspect --config "$config"
expect_code 0
expect_output '"rank_shapes"'
run 2 doctor --config "$config"
expect_code 0
expect_output "2 ranks = 2 expert x 1 replica"
run 2 --config "$config" doctor --expert 1 # the command line wins
expect_code 0
expect_output "2 ranks = 1 expert x 2 replica"

# refuse TEXT EXPECTED: the file is a usage error that names what is wrong.
refuse() {
  printf '%b' "$1" >"$config"
  run 0 inspect "$source_dir/tests/golden/mini3" --config "$config"
  expect_code 2
  expect_error "$2"
}
refuse '[inspect]\nexpret = 2\n' "inspect.expret"
refuse '[inspct]\nexpert = 2\n' "[inspct]"
refuse 'expert = 2\n' "'expert'"
refuse '[inspect]\nexpert =\n' "line 2"
refuse '[inspect]\nexpert = "two"\n' "'two' is no number above 0"
refuse '[inspect]\nexpert = 2020-02-02\n' "inspect"
refuse '[inspect]\nhelp = true\n' "help"
run 0 inspect x --config "$directory/absent.toml"
expect_code 2
expect_error "absent.toml"
finish
