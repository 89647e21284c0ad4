# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# A Slingshot 11 machine (HPE Cray EX) with NVIDIA GPUs: Cray MPICH over libfabric's cxi, NCCL over the plugin
# aws-ofi-nccl. Not tried by the project, which has no such machine; what stands here is what HPE and the centres
# CSCS, Isambard and NCAR document for theirs. The centre's own page has the last word.
# With it: #SBATCH --gpus-per-node=N and --ntasks-per-node=N.

# module load PrgEnv-gnu craype-accel-nvidia90 cudatoolkit cray-hdf5-parallel aws-ofi-nccl     # names differ

# Cray MPICH starts by PMI, not PMIx. All GPUs of a node stay visible to its ranks, which take them in turn.
srun_options=(--mpi=cray_shasta --cpu-bind=cores --gpu-bind=none)
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} OMP_PROC_BIND=close OMP_PLACES=cores
export TESSERA_DEADLINE_S=${TESSERA_DEADLINE_S:-600}

# Cray MPICH: addresses of GPU memory in MPI calls; the adapter near each rank's GPU.
export MPICH_GPU_SUPPORT_ENABLED=1 MPICH_OFI_NIC_POLICY=GPU

# NCCL: the libfabric plugin or an error, never TCP in silence; rings may cross adapters; bootstrap on the fast network.
export NCCL_NET="AWS Libfabric" NCCL_SOCKET_IFNAME=hsn NCCL_CROSS_NIC=1 NCCL_NET_GDR_LEVEL=PHB

# libfabric: host registration can deadlock with CUDA's allocations; the default memory monitor can, too; large jobs
# need longer completion queues; matching falls back to software when the adapter's lists are full.
export FI_CXI_DISABLE_HOST_REGISTER=1 FI_MR_CACHE_MONITOR=userfaultfd
export FI_CXI_DEFAULT_CQ_SIZE=131072 FI_CXI_RX_MATCH_MODE=hybrid

# Without GPUs: leave out MPICH_GPU_SUPPORT_ENABLED and everything of NCCL and CUDA.
