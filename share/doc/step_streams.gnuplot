# SPDX-License-Identifier: Apache-2.0
# One step by streams; data: lines of kind, stream, begin and end in us (step_streams.sh).
set terminal svg size 1400,400 font "sans,12" background "white"
set title "One training step on 4 ranks (2 expert x 2 replica), rank 0: kernels and collectives by stream"
set xlabel "time [us]"
set ytics ("compute" 0, "world: dense units" 1, "expert axis: rows" 2, "replica axis: experts" 3)
set yrange [3.6:-0.6]
set key outside bottom center horizontal
set bmargin 6
set style fill solid 0.8 noborder
of(kind) = sprintf("< awk '$1 == \"%s\"' %s", kind, data)
box = "using (($3+$4)/2):2:3:4:($2-0.35):($2+0.35) with boxxyerrorbars"
plot of("kernel") @box lc rgb "#9aa5b1" title "kernel", \
     of("gather") @box lc rgb "#2b6cb0" title "all-gather", \
     of("reduce") @box lc rgb "#c05621" title "reduce-scatter", \
     of("rows") @box lc rgb "#2f855a" title "rows of tokens", \
     of("copy") @box lc rgb "#805ad5" title "own rows", \
     of("wait") using 3:2:(0):(-$2) with vectors head size screen 0.004,20 lc rgb "#e53e3e" lw 0.7 \
       title "kernels wait for it"
