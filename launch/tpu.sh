#!/usr/bin/env bash
# Runs a command on every host of a Cloud TPU slice.
#
#   launch/tpu.sh TPU ZONE COMMAND FLAG...
#   launch/tpu.sh my-v5e-32 us-west4-a train --config configs/ifr_swinl.py \
#       --workdir gs://bucket/runs/ifr
#   launch/tpu.sh my-v5e-32 us-west4-a evaluate --workdir gs://bucket/runs/ifr \
#       --output gs://bucket/scores
#   launch/tpu.sh my-v5e-32 us-west4-a data build_tfds FLAG...
#
# TPU is the name of a TPU VM with this repository in ~/vis_jax, installed in
# ~/vis_jax/.venv or for python3. Folders must be reachable from all hosts: a bucket
# (gs://..) or a shared disk. Commands such as data run on the first host only. Each host
# works in the background, even if this script or its connection ends, and writes to
# ~/vis_jax/run.log, which is shown meanwhile.
# To stop: `kill -TERM $(cat ~/vis_jax/run.pid)` on one host; all save and exit, as they
# do when the TPU is preempted (spot, queued resources). Run again with the same
# arguments, train and evaluate resume.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh
if [[ $# -lt 3 || $1 == -h || $1 == --help ]]; then usage tpu; fi
tpu=$1 zone=$2
shift 2
workers=0 together=
# VIS_JAX_DISTRIBUTED: each host asks the TPU for the others (training/distributed.py).
if on_every_host "$1"; then workers=all together='VIS_JAX_DISTRIBUTED=auto'; fi
words=$(printf '%q ' "$@")
# The words between the quotes are for the shell of the host.
# shellcheck disable=SC2016
remote='set -eu
cd ~/vis_jax
if [ -s run.pid ] && kill -0 "$(cat run.pid)" 2>/dev/null; then
  echo "error: a run is going on here, process $(cat run.pid)" >&2
  exit 2
fi
python=.venv/bin/python
[ -x "$python" ] || python=python3
: >run.log  # there before `tail` opens it
trap "" HUP  # a connection that ends now must not end the run that starts
'$together' setsid nohup "$python" -m vis_jax.main '"$words"' \
  </dev/null >>run.log 2>&1 &
echo $! >run.pid
trap - HUP
tail --pid $! -n +1 -F run.log
wait $!  # and its exit code; without it, bash becomes tail, which waits for ever
'
exec gcloud compute tpus tpu-vm ssh "$tpu" --zone "$zone" --worker "$workers" \
  --command "$remote"
