// SPDX-License-Identifier: Apache-2.0
// Compiled against the double's headers and, where they are, against CUDA's and NCCL's own: what
// holds for both agrees.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstddef>
#include <type_traits>

namespace {

#define HAS(function, ...) \
  static_assert(           \
      requires { static_cast<std::add_pointer_t<__VA_ARGS__>>(&::function); }, #function)
#define IS(value, number) static_assert(static_cast<long>(value) == (number), #value)

HAS(cudaStreamCreateWithPriority, cudaError_t(cudaStream_t*, unsigned int, int));
HAS(cudaDeviceGetStreamPriorityRange, cudaError_t(int*, int*));
HAS(cudaStreamDestroy, cudaError_t(cudaStream_t));
HAS(cudaStreamSynchronize, cudaError_t(cudaStream_t));
HAS(cudaStreamWaitEvent, cudaError_t(cudaStream_t, cudaEvent_t, unsigned int));
HAS(cudaEventCreateWithFlags, cudaError_t(cudaEvent_t*, unsigned int));
HAS(cudaEventDestroy, cudaError_t(cudaEvent_t));
HAS(cudaEventRecord, cudaError_t(cudaEvent_t, cudaStream_t));
HAS(cudaEventQuery, cudaError_t(cudaEvent_t));
HAS(cudaMemcpyAsync, cudaError_t(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t));
HAS(cudaMallocHost, cudaError_t(void**, size_t));
HAS(cudaFreeHost, cudaError_t(void*));
HAS(cudaDeviceSynchronize, cudaError_t());
HAS(cudaGetErrorString, const char*(cudaError_t));
IS(cudaSuccess, 0);
IS(cudaErrorInvalidValue, 1);
IS(cudaErrorMemoryAllocation, 2);
IS(cudaErrorInvalidResourceHandle, 400);
IS(cudaErrorNotReady, 600);
IS(cudaMemcpyHostToDevice, 1);
IS(cudaMemcpyDeviceToHost, 2);
IS(cudaMemcpyDeviceToDevice, 3);
IS(cudaMemcpyDefault, 4);
IS(cudaStreamNonBlocking, 1);
IS(cudaEventDisableTiming, 2);

HAS(ncclGetVersion, ncclResult_t(int*));
HAS(ncclMemAlloc, ncclResult_t(void**, size_t));
HAS(ncclMemFree, ncclResult_t(void*));
HAS(ncclGetErrorString, const char*(ncclResult_t));
HAS(ncclGetLastError, const char*(ncclComm_t));
HAS(ncclGetUniqueId, ncclResult_t(ncclUniqueId*));
HAS(ncclCommInitRankConfig, ncclResult_t(ncclComm_t*, int, ncclUniqueId, int, ncclConfig_t*));
HAS(ncclCommSplit, ncclResult_t(ncclComm_t, int, int, ncclComm_t*, ncclConfig_t*));
HAS(ncclCommFinalize, ncclResult_t(ncclComm_t));
HAS(ncclCommDestroy, ncclResult_t(ncclComm_t));
HAS(ncclCommAbort, ncclResult_t(ncclComm_t));
HAS(ncclCommGetAsyncError, ncclResult_t(ncclComm_t, ncclResult_t*));
HAS(ncclCommCount, ncclResult_t(ncclComm_t, int*));
HAS(ncclCommUserRank, ncclResult_t(ncclComm_t, int*));
HAS(ncclCommRegister, ncclResult_t(ncclComm_t, void*, size_t, void**));
HAS(ncclCommDeregister, ncclResult_t(ncclComm_t, void*));
HAS(ncclBroadcast,
    ncclResult_t(const void*, void*, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t));
HAS(ncclAllReduce, ncclResult_t(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t,
                                cudaStream_t));
HAS(ncclReduceScatter, ncclResult_t(const void*, void*, size_t, ncclDataType_t, ncclRedOp_t,
                                    ncclComm_t, cudaStream_t));
HAS(ncclAllGather,
    ncclResult_t(const void*, void*, size_t, ncclDataType_t, ncclComm_t, cudaStream_t));
HAS(ncclSend, ncclResult_t(const void*, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t));
HAS(ncclRecv, ncclResult_t(void*, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t));
HAS(ncclGroupStart, ncclResult_t());
HAS(ncclGroupEnd, ncclResult_t());
IS(ncclSuccess, 0);
IS(ncclUnhandledCudaError, 1);
IS(ncclSystemError, 2);
IS(ncclInternalError, 3);
IS(ncclInvalidArgument, 4);
IS(ncclInvalidUsage, 5);
IS(ncclRemoteError, 6);
IS(ncclInProgress, 7);
IS(ncclSum, 0);
IS(ncclMax, 2);
IS(ncclMin, 3);
IS(ncclInt8, 0);
IS(ncclUint8, 1);
IS(ncclInt32, 2);
IS(ncclInt64, 4);
IS(ncclUint64, 5);
IS(ncclFloat16, 6);
IS(ncclFloat32, 7);
IS(ncclFloat64, 8);
IS(ncclBfloat16, 9);
IS(sizeof(ncclUniqueId), 128);
IS(NCCL_SPLIT_NOCOLOR, -1);
IS(offsetof(ncclConfig_t, blocking), 16);
IS(offsetof(ncclConfig_t, netName), 32);
IS(offsetof(ncclConfig_t, splitShare), 40);

}  // namespace
