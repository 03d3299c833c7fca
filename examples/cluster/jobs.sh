#!/bin/bash
# Send the four steps of array.py to SLURM: each waits until the one before ended well. Usage: bash jobs.sh
set -e
export OMP_NUM_THREADS=1 # one core for each job
here=$(dirname "$(realpath "$0")")
send() { sbatch --parsable --cpus-per-task=1 --mem=2G --time=12:00:00 "${@:2}" --wrap "python $here/array.py $1"; }
train=$(send train --array=0-7)
merge=$(send merge --dependency="afterok:$train" --mem=8G)
generate=$(send generate --array=0-99 --dependency="afterok:$merge")
send join --dependency="afterok:$generate"
