# SPDX-License-Identifier: Apache-2.0
# Thread sanitizer on the kernels, three threads per rank: Debian unstable with clang, whose OpenMP library tells
# the sanitizer of its barriers (through Archer), which gcc's does not.
source "$here/stack/sid.sh"
packages+=(clang libomp-dev libclang-rt-21-dev)
options+=(-DCMAKE_CXX_COMPILER=clang++ -DCMAKE_C_COMPILER=clang -DTESSERA_SANITIZE=thread -DTESSERA_WERROR=OFF)
# Kokkos and oneDNN were linked with gcc's OpenMP library; clang's has its interface, too.
environment=(LD_LIBRARY_PATH=/usr/lib/tessera-openmp)
tests=(-R '^kernel/')

mend() {
  mend_kokkos
  mkdir -p /usr/lib/tessera-openmp
  ln -sf "$(clang -print-file-name=libomp.so)" /usr/lib/tessera-openmp/libgomp.so.1
}
