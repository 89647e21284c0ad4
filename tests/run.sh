#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing (Debian 12), builds everything in build/release and runs all tests; with CI=true
# warnings are errors. Further arguments go to ctest. Usage: tests/run.sh [-R name ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source share/setup/common.sh

share/setup/debian.sh
build_release all
export_mpi_environment
exec ctest --test-dir "$build" --parallel $((2 * $(nproc))) --output-on-failure --no-label-summary --no-tests=error "$@" </dev/null
