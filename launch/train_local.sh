#!/usr/bin/env bash
# Trains on this machine, on all its devices.
#
#   launch/train_local.sh CONFIG WORKDIR [FLAG...]
#   launch/train_local.sh configs/ifr_shapes.py runs/shapes
#   launch/train_local.sh configs/ifr_shapes.py:debug runs/debug
#
# FLAG: any setting as --config.SECTION.FIELD=VALUE; docs/training.md has more. Paths are
# relative to the repository. Started again with the same arguments, it continues from the
# newest checkpoint in WORKDIR.
# Which devices: JAX_PLATFORMS=cpu or CUDA_VISIBLE_DEVICES=0,1 in the environment.
# More processes, one on each machine: set VIS_JAX_COORDINATOR=HOST:PORT,
# VIS_JAX_NUM_PROCESSES and VIS_JAX_PROCESS_ID (0, 1, ..) for each of them.
set -euo pipefail
if [[ $# -lt 2 || $1 == -h || $1 == --help ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
  exit 2
fi
config=$1 workdir=$2
shift 2
cd "$(dirname "$0")/.."
exec python -m vis_jax.main --config "$config" --workdir "$workdir" "$@"
