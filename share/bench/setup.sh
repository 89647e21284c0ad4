#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the virtual environment of the peers in build/peers (or the directory given).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
directory=${1:-$root/build/peers}
python3 -m venv "$directory"
"$directory/bin/pip" install torch==2.15.0 transformers==5.23.0 accelerate deepspeed==0.19.8 numpy
echo "done: $directory/bin/python share/bench/compare.py --help"
