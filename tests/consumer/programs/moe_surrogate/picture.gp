# SPDX-License-Identifier: Apache-2.0
# gnuplot -e "data='terms.txt'; picture='terms.png'" picture.gp
set terminal pngcairo size 1100,1000 font "sans,11"
set output picture
set size square
set xrange [0:1]; set yrange [0:1]
unset key; unset xtics; unset ytics
stats data using 3 nooutput
limit = STATS_max > -STATS_min ? STATS_max : -STATS_min
set cbrange [-limit:limit]
set palette defined (-1 "#2166ac", 0 "#f7f7f7", 1 "#b2182b")
set multiplot layout 2,2 title "What the coarse grid does not see [1/time]"
set title "resolved by the fine run"
plot data using 1:2:3 with image
set title "gradient model"
plot data using 1:2:4 with image
set title "mixture of experts, trained in place"
plot data using 1:2:5 with image
set title "first choice among six experts"
set cbrange [-0.5:5.5]
set cbtics 1
set palette maxcolors 6
set palette defined (0 "#1b9e77", 1 "#d95f02", 2 "#7570b3", 3 "#e7298a", 4 "#66a61e", 5 "#e6ab02")
plot data using 1:2:6 with image
unset multiplot
