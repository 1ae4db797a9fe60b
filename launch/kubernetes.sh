#!/usr/bin/env bash
# Runs a command on Kubernetes: one pod per host, as a JobSet (jobset.sigs.k8s.io).
#
#   launch/kubernetes.sh NAME IMAGE HOSTS COMMAND FLAG...
#   launch/kubernetes.sh ifr eu.gcr.io/mine/vis_jax 4 train --config configs/ifr_swinl.py \
#       --workdir gs://bucket/runs/ifr
#   launch/kubernetes.sh score eu.gcr.io/mine/vis_jax 4 evaluate \
#       --workdir gs://bucket/runs/ifr --output gs://bucket/scores
#   launch/kubernetes.sh pack eu.gcr.io/mine/vis_jax 1 data build_tfds FLAG...
#
# IMAGE must have vis_jax installed and this repository as its working directory.
# Environment variables: DEVICES, number per host (8); RESOURCE, their type
# (nvidia.com/gpu, or google.com/tpu); VOLUME, a claim to mount at /data of every pod
# (ReadWriteMany). Folders must be there or in a bucket. PRINT=1 only prints the
# manifest, to add what else it needs, such as the node selector of a TPU.
#
# A preempted pod gets SIGTERM: all pods save and exit, and the JobSet restarts them, as
# after a fault, and they resume. User errors (code 2) end it, and so do videos that
# could not be predicted (code 3).
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh
if [[ $# -lt 4 || $1 == -h || $1 == --help ]]; then usage kubernetes; fi
name=$1 image=$2 hosts=$3
shift 3
if [[ ! $hosts =~ ^[1-9][0-9]*$ ]]; then
  echo "error: HOSTS: expected a number, got $hosts" >&2 && exit 2
fi
if [[ $hosts != 1 ]] && ! on_every_host "$1"; then
  echo "error: HOSTS: $1 runs on 1, got $hosts" >&2 && exit 2
fi
words=
for word in "$@"; do words+=", '${word//\'/\'\'}'"; done
manifest=$(sed -e "s|@NAME@|$name|g; s|@IMAGE@|$image|; s|@HOSTS@|$hosts|g" \
  -e "s|@RESOURCE@|${RESOURCE:-nvidia.com/gpu}|; s|@DEVICES@|${DEVICES:-8}|" \
  -e "s|@VOLUME@|${VOLUME-}|" launch/jobset.yaml)
if [[ -z ${VOLUME-} ]]; then manifest=$(sed '/# with VOLUME$/d' <<<"$manifest"); fi
manifest=${manifest/, @WORDS@/"$words"}
if [[ ${PRINT-} == 1 ]]; then echo "$manifest" && exit; fi
exec kubectl apply -f - <<<"$manifest"
