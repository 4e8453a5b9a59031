#!/usr/bin/env bash
# Train one run on several nodes under Slurm, each with all of its GPUs. Checked by shellcheck, not run on a cluster.
#   sbatch --nodes=2 --gpus-per-node=8 examples/slurm.sh --config cifar10_wide_resnet34.yaml \
#       --set training.batch_size=1024 --set target.batch_size=1024
#   sbatch --nodes=2 --gpus-per-node=8 examples/slurm.sh --resume checkpoints/cifar10_wide_resnet34/0   # after a stop
# The folder of the runs has to be on a disk that all nodes share.
#SBATCH --job-name=advgan
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
set -euo pipefail

port=${ADVGAN_PORT:-23456}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
addresses=$(printf '"%s", ' "${nodes[@]/%/:$port}")
export ADVGAN_CLUSTER="{\"worker\": [${addresses%, }]}"

# The single quotes are for the node's shell, where SLURM_PROCID is its own.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=1 bash -c '
  export TF_CONFIG="{\"cluster\": $ADVGAN_CLUSTER, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec .venv/bin/python -m advgan.train "$@"
' advgan "$@"
