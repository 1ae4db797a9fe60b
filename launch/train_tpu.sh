#!/usr/bin/env bash
# Trains on a Cloud TPU: the same command on every host of the slice.
#
#   launch/train_tpu.sh TPU ZONE CONFIG WORKDIR [FLAG...]
#   launch/train_tpu.sh my-v5e-32 us-west4-a configs/ifr_swinl.py gs://bucket/runs/ifr
#
# TPU is the name of a TPU VM that has this repository, installed, in ~/vis_jax. WORKDIR
# must be reachable from all hosts: a bucket (gs://..) or a shared disk. Started again
# with the same arguments, it continues from the newest checkpoint in WORKDIR.
set -euo pipefail
if [[ $# -lt 4 || $1 == -h || $1 == --help ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
  exit 2
fi
tpu=$1 zone=$2 config=$3 workdir=$4
shift 4
# VIS_JAX_DISTRIBUTED: each host asks the TPU for the others (train/distributed.py).
command=$(printf '%q ' env VIS_JAX_DISTRIBUTED=auto \
  python -m vis_jax.main --config "$config" --workdir "$workdir" "$@")
exec gcloud compute tpus tpu-vm ssh "$tpu" --zone "$zone" --worker all \
  --command "cd ~/vis_jax && $command"
