# SPDX-License-Identifier: Apache-2.0
# Weak scaling on one machine; data: directory of MACHINE.MODEL.dat (scaling.sh)
set terminal svg size 760,420 font "sans,12" background "white"
set title "Weak scaling, best grid, one sequence per rank: " . machine noenhanced
set xlabel "ranks"
set ylabel "tokens per second and rank, % of the first"
set logscale x 2
set yrange [0:*]
set grid
set key outside right noenhanced
file(model) = sprintf("%s/%s.%s.dat", data, machine, model)
plot for [model in "gpt_oss_20b gpt_oss_120b deepseek_v3"] file(model) using 1:2 with linespoints lw 2 pt 7 title model
