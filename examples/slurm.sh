#!/bin/bash
# sbatch examples/slurm.sh: two nodes of eight GPUs. Requeued or repeated it goes on where it was.
#SBATCH --job-name=lavi-bridge
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120

set -euo pipefail
export OMP_NUM_THREADS=4
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# exec: the signal that announces the end reaches torchrun, and by it every process
srun bash -c "exec torchrun --shutdown-timeout 110 --nnodes \$SLURM_NNODES --nproc_per_node 8 \
    --rdzv_backend c10d --rdzv_endpoint $head:29500 --rdzv_id \$SLURM_JOB_ID \
    -m lavi_bridge train examples/t5-large-sd.yaml"
