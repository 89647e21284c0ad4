# SPDX-License-Identifier: Apache-2.0
# Time per token against tokens of a rank for several expert axes; data: directory of expert.E (scaling.sh)
set terminal svg size 760,420 font "sans,12" background "white"
set title "gpt-oss-120b on 1,024 H100: where expert parallelism stops paying"
set xlabel "tokens per rank and micro-step"
set ylabel "us per token and rank"
set logscale xy
set grid
set key outside right
bound = 2.25 * 128 * 2880 / 4
set arrow from bound, graph 0 to bound, graph 1 nohead dt 2 lc rgb "#888888"
set label "(9/4) E I / K" at bound, graph 0.95 right offset -1,0
plot for [e in "1 8 64 128"] sprintf("%s/expert.%s", data, e) using 1:(1e6 * $2 / $1) with linespoints lw 2 pt 7 title "E = " . e
