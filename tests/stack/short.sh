#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The short run of a stack, where it is asked for: three minutes of two processors and a download the first time.
# Usage: short.sh SOURCE STACK
set -euo pipefail
[[ ${TESSERA_STACK_TEST-} == yes ]] || { echo "skipped: three minutes of two processors; TESSERA_STACK_TEST=yes does it"; exit 77; }
exec "$1/share/stacks/run.sh" "$2" --short
