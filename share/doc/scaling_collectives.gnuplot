# SPDX-License-Identifier: Apache-2.0
# Step time by algorithm of the collectives; data: directory of collectives.NAME (scaling.sh)
set terminal svg size 760,420 font "sans,12" background "white"
set title "gpt-oss-120b on H100, --expert 8, 4,096 tokens per rank"
set xlabel "ranks"
set ylabel "step [s]"
set logscale xy
set grid
set key outside right
plot for [name in "ring logarithmic hierarchical"] sprintf("%s/collectives.%s", data, name) using 1:2 with linespoints lw 2 pt 7 title name
