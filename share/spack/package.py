# SPDX-License-Identifier: Apache-2.0
"""Spack's recipe: in a repository of your own (`spack repo create mine`), as packages/tessera/package.py. Sources come
from a checkout: `spack dev-build tessera@main` in it, or `spack develop`."""
from spack.package import *


class Tessera(CMakePackage, CudaPackage):
    """Mixture-of-Experts language models with expert parallelism and ZeRO-3 at the same time, on MPI; each of its
    modules can be linked into a science code."""

    license("Apache-2.0")

    version("main", branch="main")

    variant("shared", default=False, description="Shared libraries")
    variant("fortran", default=True, description="The Fortran module")
    variant("nccl", default=True, when="+cuda", description="Collectives by NCCL")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("fortran", type="build", when="+fortran")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type=("build", "link", "run"))

    depends_on("mpi@3.1:")
    depends_on("hdf5@1.10:+mpi")
    depends_on("kokkos@3.4:5")
    depends_on("onednn@2.6:")
    depends_on("xxhash@0.8:")
    depends_on("fmt")
    depends_on("spdlog")
    depends_on("nlohmann-json", type="build")
    depends_on("cli11", type="build")
    depends_on("tomlplusplus", type="build")
    depends_on("gnuplot", type="run")

    with when("+cuda"):
        depends_on("cuda@12.5:")
        depends_on("nccl", when="+nccl")
        for arch in CudaPackage.cuda_arch_values:
            depends_on(
                f"kokkos@4.7:+cuda+wrapper~cuda_relocatable_device_code cuda_arch={arch}", when=f"cuda_arch={arch}"
            )

    def cmake_args(self):
        args = [
            self.define("TESSERA_TESTS", False),
            self.define_from_variant("BUILD_SHARED_LIBS", "shared"),
            self.define_from_variant("TESSERA_FORTRAN", "fortran"),
            self.define_from_variant("TESSERA_CUDA", "cuda"),
        ]
        if self.spec.satisfies("+cuda"):
            args.append(self.define_from_variant("TESSERA_NCCL", "nccl"))
        return args
