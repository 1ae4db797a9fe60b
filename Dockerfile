# For NVIDIA GPUs. CUDA comes with JAX's packages; the host needs the driver and the
# NVIDIA Container Toolkit. In a clone:
#
#   docker build -t vis_jax .                           # CUDA 13, a driver of 580 or newer
#   docker build -t vis_jax --build-arg EXTRAS=cuda12 . # CUDA 12, a driver of 525 or newer
#   mkdir -p runs
#   docker run --rm --gpus all --user "$(id -u)" -v "$PWD/runs:/runs" vis_jax \
#       --config ifr_shapes --workdir /runs/shapes
#
# EXTRAS=tpu makes an image for TPUs. Either can be the IMAGE of launch/kubernetes.sh,
# which expects this repository as the working directory.
FROM python:3.12-slim
ARG EXTRAS=cuda13
WORKDIR /vis_jax
COPY . .
RUN pip install --no-cache-dir ".[${EXTRAS}]"
# Not as root. The home is for caches, also of a user without an entry in /etc/passwd.
USER 1000
ENV HOME=/tmp PYTHONUNBUFFERED=1
ENTRYPOINT ["vis-jax"]
CMD ["doctor"]
