#!/usr/bin/env bash
# Trains under Slurm: one process on each node, with all its GPUs.
#
#   sbatch --nodes 2 --gpus-per-node 8 launch/train_slurm.sh CONFIG WORKDIR [FLAG...]
#
# WORKDIR must lie on a disk that all nodes share. Slurm sends SIGTERM three minutes
# before the time is up; the run then saves, ends with code 143 and this script puts the
# job back into the queue, where it continues from that checkpoint. So it does when the
# signal comes before the training has begun, or to the run alone. `scancel` ends it.
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

stopping=0 tasks=
stop() {
  stopping=1
  if [[ -n $tasks ]]; then kill -TERM "$tasks" 2>/dev/null || true; fi
}
trap stop TERM
srun python -m vis_jax.main --config "$config" --workdir "$workdir" "$@" &
tasks=$!
if [[ $stopping == 1 ]]; then kill -TERM "$tasks" || true; fi
# A signal ends the wait, not the run: then wait again, for the code of the run.
code=0
wait "$tasks" || code=$?
while kill -0 "$tasks" 2>/dev/null; do
  code=0
  wait "$tasks" || code=$?
done
if [[ $stopping == 1 && $code == 143 ]]; then
  wait "$tasks" 2>/dev/null || code=$?
  if [[ $code == 127 ]]; then code=143; fi # it was waited for already
fi
# 143: stopped by SIGTERM, here or in the run alone; 2 is an error. A job that was
# cancelled is no longer running, and stays out of the queue.
if [[ $code == 143 || ($stopping == 1 && $code != 0 && $code != 2) ]]; then
  state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T || echo RUNNING)
  if [[ $state == RUNNING ]]; then scontrol requeue "$SLURM_JOB_ID"; fi
fi
exit "$code"
