#!/usr/bin/env bash
# Trains on a Cloud TPU: the same command on every host of the slice.
#
#   launch/train_tpu.sh TPU ZONE CONFIG WORKDIR [FLAG...]
#   launch/train_tpu.sh my-v5e-32 us-west4-a configs/ifr_swinl.py gs://bucket/runs/ifr
#
# TPU is the name of a TPU VM that has this repository in ~/vis_jax, installed in
# ~/vis_jax/.venv or for python3. WORKDIR must be reachable from all hosts: a bucket
# (gs://..) or a shared disk. Each host trains in the background, also when this script
# or its connection ends, and writes to ~/vis_jax/train.log, which is shown meanwhile.
# To stop: `kill -TERM $(cat ~/vis_jax/train.pid)` on one host; all save and leave.
# Started again with the same arguments, it continues from the newest checkpoint in
# WORKDIR.
set -euo pipefail
if [[ $# -lt 4 || $1 == -h || $1 == --help ]]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
  exit 2
fi
tpu=$1 zone=$2 config=$3 workdir=$4
shift 4
flags=$(printf '%q ' --config "$config" --workdir "$workdir" "$@")
# VIS_JAX_DISTRIBUTED: each host asks the TPU for the others (training/distributed.py).
# The words between the quotes are for the shell of the host.
# shellcheck disable=SC2016
remote='set -eu
cd ~/vis_jax
if [ -s train.pid ] && kill -0 "$(cat train.pid)" 2>/dev/null; then
  echo "error: a run is going on here, process $(cat train.pid)" >&2
  exit 2
fi
python=.venv/bin/python
[ -x "$python" ] || python=python3
trap "" HUP  # a connection that ends now must not end the run that starts
VIS_JAX_DISTRIBUTED=auto setsid nohup "$python" -m vis_jax.main '"$flags"' \
  </dev/null >train.log 2>&1 &
echo $! >train.pid
trap - HUP
tail --pid "$(cat train.pid)" -n +1 -F train.log
'
exec gcloud compute tpus tpu-vm ssh "$tpu" --zone "$zone" --worker all \
  --command "$remote"
