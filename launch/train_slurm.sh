#!/usr/bin/env bash
# Trains under Slurm: one process on each node, with all its GPUs.
#
#   sbatch --nodes 2 --gpus-per-node 8 launch/train_slurm.sh CONFIG WORKDIR [FLAG...]
#
# WORKDIR must lie on a disk that all nodes share. Slurm sends SIGTERM three minutes
# before the time is up; the run then saves, ends with code 0 and this script puts the
# job back into the queue, where it continues from that checkpoint.
#SBATCH --job-name=vis_jax
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
#SBATCH --open-mode=append
set -euo pipefail
if [[ $# -lt 2 || $1 == -h || $1 == --help ]]; then
  sed -n '2,/^set /{/^#[^S]/s/^# \{0,1\}//p;/^#$/s/^#//p}' "$0"
  exit 2
fi
config=$1 workdir=$2
shift 2
cd "${SLURM_SUBMIT_DIR:?start this script with sbatch}"

stopping=0
srun python -m vis_jax.main --config "$config" --workdir "$workdir" "$@" &
tasks=$!
trap 'stopping=1; kill -TERM "$tasks"' TERM
code=0
wait "$tasks" || code=$?
if [[ $stopping == 1 ]]; then
  # The first wait ended with the signal; the second one waits for the checkpoint.
  code=0
  wait "$tasks" || code=$?
  [[ $code == 0 ]] && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
