# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034
# A cluster of nodes without GPUs: Open MPI built with PMIx, over Ethernet, InfiniBand or Omni-Path.
# Sourced by the templates in the job's first node; srun hands the variables on to all tasks.

# module load gcc openmpi hdf5-parallel     # names differ; the ones that Tessera was built with

# --mpi=pmix: Slurm starts the ranks, without mpirun (srun --mpi=list shows what this Slurm has).
# --cpu-bind=cores: each rank stays on its cores; without it two ranks may share one.
srun_options=(--mpi=pmix --cpu-bind=cores)

# Slurm 22.05 and later no longer take the tasks' cores from sbatch.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1} OMP_PROC_BIND=close OMP_PLACES=cores

# Longest wait for another rank [s] before a rank says where it was and the job ends; MPI_Init included.
export TESSERA_DEADLINE_S=${TESSERA_DEADLINE_S:-600}

# Where nodes have several networks, name the fast one for TCP; other networks Open MPI finds itself.
# export OMPI_MCA_btl_tcp_if_include=eth0
