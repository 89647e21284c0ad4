# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# An InfiniBand machine with NVIDIA GPUs: Open MPI over UCX, NCCL over its own InfiniBand transport. Not tried by
# the project, which has no such machine; what stands here is what NVIDIA and centres document.
# With it: #SBATCH --gpus-per-node=N and --ntasks-per-node=N.

# module load gcc cuda nccl openmpi hdf5-parallel     # names differ; an Open MPI with UCX and CUDA

# All GPUs of a node stay visible to its ranks, which take them in turn; --gpus-per-task would hide the others, and
# with them NVLink, from NCCL.
srun_options=(--mpi=pmix --cpu-bind=cores --gpu-bind=none)
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} OMP_PROC_BIND=close OMP_PLACES=cores
export TESSERA_DEADLINE_S=${TESSERA_DEADLINE_S:-600}

# UCX or an error, never TCP in silence.
export OMPI_MCA_pml=ucx

# UCX and NCCL find the adapters themselves and take those near the GPU. Name them only if some belong to storage:
# export UCX_NET_DEVICES=mlx5_0:1,mlx5_1:1
# export NCCL_IB_HCA=mlx5_0,mlx5_1
# The interface over which NCCL's ranks find each other, where a node has several:
# export NCCL_SOCKET_IFNAME=ib0
# What NCCL chose, once per new machine:
# export NCCL_DEBUG=INFO
