# A Kokkos of headers alone (kokkos.sh), as a CUDA build of Tessera finds one; TESSERA_GATE_KOKKOS is their folder.
file(STRINGS ${TESSERA_GATE_KOKKOS}/KokkosCore_config.h lines REGEX "define KOKKOS_VERSION_(MAJOR|MINOR|PATCH)")
list(TRANSFORM lines REPLACE "[^0-9]" "")
list(JOIN lines . Kokkos_VERSION)
set(Kokkos_DEVICES CUDA SERIAL)
set(Kokkos_ENABLE_CUDA ON)
set(Kokkos_CUDA_ARCHITECTURES 90)
add_library(Kokkos::kokkos INTERFACE IMPORTED)
set_target_properties(Kokkos::kokkos PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${TESSERA_GATE_KOKKOS})
