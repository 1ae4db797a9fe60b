#!/usr/bin/env bash
# Runs a command under Slurm: one process per node, with all its GPUs.
#
#   sbatch --nodes 2 --gpus-per-node 8 --cpus-per-task 64 launch/slurm.sh train FLAG...
#   sbatch --nodes 2 --gpus-per-node 8 --cpus-per-task 64 launch/slurm.sh evaluate FLAG...
#   sbatch --cpus-per-task 16 launch/slurm.sh data build_tfds FLAG...
#
# Videos can also be divided among a job array, whose tasks need not run at the same time:
#
#   sbatch --array 1-16 --gpus-per-node 1 --cpus-per-task 8 launch/slurm.sh evaluate \
#       --workdir DIR --output OUT
#   sbatch --dependency afterok:JOB launch/slurm.sh evaluate --merge --workdir DIR --output OUT
#
# Folders must be on a disk shared by all nodes, or in a bucket. Slurm sends SIGTERM three
# minutes before the time limit; training then saves and exits with code 143, and this
# script requeues the job, which resumes from there. The same happens if the signal
# arrives before the work has begun, or only at the run itself. `scancel` ends the job.
#SBATCH --job-name=vis_jax
#SBATCH --ntasks-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
#SBATCH --open-mode=append
set -euo pipefail
if [[ $# == 0 || $1 == -h || $1 == --help ]]; then # before sbatch, as after it
  cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
  . launch/common.sh
  usage slurm
fi
cd "${SLURM_SUBMIT_DIR:?start this script with sbatch}"
. launch/common.sh
where=()
on_every_host "$1" || where=(--nodes 1 --ntasks 1)
if [[ -n ${SLURM_ARRAY_TASK_COUNT-} && ($1 == evaluate || $1 == predict) ]]; then
  # An array such as 1-16 or 0-15, without gaps.
  set -- "$@" --shard \
    "$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))/$SLURM_ARRAY_TASK_COUNT"
fi

# Since Slurm 22.05, srun does not take it from sbatch by itself.
if [[ -n ${SLURM_CPUS_PER_TASK-} ]]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

stopping=0 tasks=
stop() {
  stopping=1
  if [[ -n $tasks ]]; then kill -TERM "$tasks" 2>/dev/null || true; fi
}
trap stop TERM
srun ${where[@]+"${where[@]}"} python -m vis_jax.main "$@" &
tasks=$!
if [[ $stopping == 1 ]]; then kill -TERM "$tasks" || true; fi
wait_for "$tasks"
# 143: stopped by SIGTERM, here or in the run alone; 2 is an error. A job that was
# cancelled is no longer running, and stays out of the queue.
if [[ $code == 143 || ($stopping == 1 && $code != 0 && $code != 2) ]]; then
  job=$SLURM_JOB_ID
  # The last task of an array has the number of the array, which means all tasks.
  if [[ -n ${SLURM_ARRAY_JOB_ID-} ]]; then
    job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  fi
  state=$(squeue --noheader --jobs "$job" --format %T || echo RUNNING)
  if [[ $state == RUNNING ]]; then scontrol requeue "$job"; fi
fi
exit "$code"
