#!/usr/bin/env bash
# Runs a command on this machine, on all its devices.
#
#   launch/local.sh [-n PROCESSES] COMMAND FLAG...
#   launch/local.sh train --config configs/ifr_shapes.py --workdir runs/shapes
#   launch/local.sh evaluate --workdir runs/shapes --output out
#   launch/local.sh data check --root /data/mine
#
# COMMAND and FLAG are those of `python -m vis_jax.main`. Paths are relative to the
# repository. Run again with the same arguments, train and evaluate resume.
# To select devices, set JAX_PLATFORMS=cpu or CUDA_VISIBLE_DEVICES=0,1 in the environment.
# -n: number of processes that work together; on CPUs, or to simulate several hosts.
# For processes on several machines without a scheduler, set VIS_JAX_COORDINATOR=HOST:PORT,
# VIS_JAX_NUM_PROCESSES and VIS_JAX_PROCESS_ID (0, 1, ..) for each of them.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh
processes=1
if [[ ${1-} == -n ]]; then
  if [[ $# -lt 3 ]]; then usage local; fi
  processes=$2
  shift 2
fi
if [[ $# == 0 || ! $processes =~ ^[1-9][0-9]*$ || $1 == -h || $1 == --help ]]; then
  usage local
fi
if [[ $processes == 1 ]]; then exec python -m vis_jax.main "$@"; fi
on_every_host "$1" || { echo "error: -n: $1 is one process" >&2 && exit 2; }

export VIS_JAX_NUM_PROCESSES=$processes
export VIS_JAX_COORDINATOR=127.0.0.1:${PORT:-$((20000 + $$ % 10000))}
tasks=()
for ((i = 0; i < processes; i++)); do
  VIS_JAX_PROCESS_ID=$i python -m vis_jax.main "$@" &
  tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}" 2>/dev/null || true' TERM INT
result=0
for task in "${tasks[@]}"; do
  wait_for "$task"
  if [[ $code != 0 ]]; then result=$code; fi
done
exit "$result"
