// SPDX-License-Identifier: Apache-2.0
// What NCCL's contract forbids, done on purpose: NCCL's double tells each by a message that names
// the calls. Here the message is kept; without a handler it ends the job.
#include <catch2/catch.hpp>

#include "nccl_fixture.hpp"

using namespace tessera::test;

TEST_CASE("What is allowed is not complained about", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  CHECK(nccl.gather(b.mine.data(), b.all.data(), 4) == ncclInProgress);
  CHECK(nccl.settle() == ncclSuccess);
  CHECK(nccl.finish() == ncclSuccess);
  CHECK(b.all[4] == 1.0f);
  CHECK(misuses.text().empty());
}

TEST_CASE("Misuse: another count on one rank", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  nccl.gather(b.mine.data(), b.all.data(), world().rank() == 1 ? 3 : 4);
  CHECK(nccl.finish() != ncclSuccess);
  CHECK(
      misuses.name("rank 0 calls ncclAllGather of 4 x f32 where rank 1 calls ncclAllGather of 3"));
  world().barrier("both have seen it");
}

TEST_CASE("Misuse: another type on one rank", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  const ncclDataType_t type = world().rank() == 1 ? ncclInt32 : ncclFloat32;
  ncclAllGather(b.mine.data(), b.all.data(), 4, type, nccl.comm, nccl.stream);
  CHECK(nccl.finish() != ncclSuccess);
  CHECK(misuses.name("4 x f32 where rank 1 calls ncclAllGather of 4 x i32"));
  world().barrier("both have seen it");
}

TEST_CASE("Misuse: calls in another order on one rank", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b, c;
  const auto reduce = [&] {
    ncclAllReduce(c.mine.data(), c.mine.data(), 4, ncclFloat32, ncclSum, nccl.comm, nccl.stream);
    nccl.settle();
  };
  if (world().rank() == 1) reduce();
  nccl.gather(b.mine.data(), b.all.data(), 4);
  nccl.settle();
  if (world().rank() != 1) reduce();
  CHECK(nccl.finish() != ncclSuccess);
  CHECK(misuses.name("rank 0 calls ncclAllGather of 4 x f32 where rank 1 calls ncclAllReduce"));
  world().barrier("both have seen it");
}

TEST_CASE("Misuse: another root, another operation", "[nccl]") {
  const Misuses misuses;
  {
    Nccl nccl(world());
    Buffers b;
    ncclBroadcast(b.mine.data(), b.mine.data(), 4, ncclFloat32, world().rank() == 1 ? 1 : 0,
                  nccl.comm, nccl.stream);
    CHECK(nccl.finish() != ncclSuccess);
    CHECK(misuses.name("from 0 where rank 1 calls ncclBroadcast of 4 x f32 from 1"));
    world().barrier("both have seen it");
  }
  Nccl nccl(world());
  Buffers b;
  ncclAllReduce(b.mine.data(), b.mine.data(), 4, ncclFloat32,
                world().rank() == 1 ? ncclMax : ncclSum, nccl.comm, nccl.stream);
  CHECK(nccl.finish() != ncclSuccess);
  CHECK(misuses.name("4 x f32, sum where rank 1 calls ncclAllReduce of 4 x f32, max"));
  world().barrier("both have seen it");
}

TEST_CASE("Misuse: a group that is not closed", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  ncclGroupStart();
  nccl.gather(b.mine.data(), b.all.data(), 4);
  CHECK(cudaEventRecord(nccl.event, nccl.stream) != cudaSuccess);
  CHECK(misuses.tell("ncclGroupEnd is missing"));
  ncclGroupEnd();
  nccl.settle();
  CHECK(nccl.finish() == ncclSuccess);
  CHECK(ncclGroupEnd() == ncclInvalidUsage);
  CHECK(misuses.tell("ncclGroupEnd without ncclGroupStart"));
}

TEST_CASE("Misuse: a rank outside, one rank twice, a communicator of the wrong size", "[nccl]") {
  const Misuses misuses;
  const auto state_of_new = [](int size, int rank) {
    ncclUniqueId id{};
    if (world().rank() == 0) ncclGetUniqueId(&id);
    world().broadcast("identity", std::span<char>(id.internal), 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t comm = nullptr;
    const ncclResult_t code = ncclCommInitRankConfig(&comm, size, id, rank, &config);
    ncclResult_t state = code;
    while (state == ncclInProgress) ncclCommGetAsyncError(comm, &state);
    // The root of the identity answers only while it is asked.
    MPI_Request met = MPI_REQUEST_NULL;
    MPI_Ibarrier(world().mpi(), &met);
    for (int done = 0; done == 0;) {
      ncclResult_t ignored = ncclSuccess;
      if (code == ncclInProgress) ncclCommGetAsyncError(comm, &ignored);
      MPI_Test(&met, &done, MPI_STATUS_IGNORE);
    }
    if (code == ncclInProgress) ncclCommAbort(comm);
    return state;
  };
  const int size = world().size(), rank = world().rank();
  CHECK(state_of_new(size, size) == ncclInvalidUsage);
  CHECK(misuses.tell("in a job of"));
  CHECK(state_of_new(size, rank == 1 ? 0 : rank) == ncclInvalidArgument);
  CHECK(misuses.tell("two processes are rank 0 of a communicator"));
  if (size < 3) return;
  CHECK(state_of_new(rank == 1 ? 2 : 3, rank) == ncclInvalidArgument);
  CHECK(misuses.tell("makes a communicator of"));
}

TEST_CASE("Misuse: the wrong communicator waits for those who use the right one", "[nccl]") {
  const Misuses misuses;
  Nccl right(world()), wrong(world());
  Buffers b;
  Nccl& used = world().rank() == 1 ? wrong : right;
  used.gather(b.mine.data(), b.all.data(), 4);
  used.settle();
  cudaEventRecord(used.event, used.stream);
  for (int i = 0; i < 1000; ++i) CHECK(cudaEventQuery(used.event) == cudaErrorNotReady);
  // What the message at the deadline says.
  if (world().rank() == 0) CHECK(contains(ncclGetLastError(used.comm), "waits for rank 1"));
  if (world().rank() == 1) CHECK(contains(ncclGetLastError(used.comm), "waits for rank 0"));
  world().barrier("both have seen it");
}

TEST_CASE("Misuse: calls after abort, after destroy, and before the one before has ended",
          "[nccl]") {
  const Misuses misuses;
  Buffers b;
  Nccl nccl(world());
  nccl.gather(b.mine.data(), b.all.data(), 4);
  nccl.gather(b.mine.data(), b.all.data(), 4);
  CHECK(misuses.tell("while the call before is in progress"));
  nccl.settle();
  nccl.finish();
  world().barrier("all have finished");
  CHECK(ncclCommDestroy(nccl.comm) != ncclSuccess);
  CHECK(misuses.tell("without ncclCommFinalize"));
  ncclCommFinalize(nccl.comm);
  nccl.settle();
  CHECK(ncclCommDestroy(nccl.comm) == ncclSuccess);
  CHECK(nccl.gather(b.mine.data(), b.all.data(), 4) != ncclInProgress);
  CHECK(misuses.tell("ncclAllGather after ncclCommDestroy"));
  nccl.comm = nullptr;

  Nccl other(world());
  ncclCommAbort(other.comm);
  CHECK(other.gather(b.mine.data(), b.all.data(), 4) != ncclInProgress);
  CHECK(misuses.tell("ncclAllGather after ncclCommAbort"));
  other.comm = nullptr;
}

TEST_CASE("Misuse: a split while operations are in flight", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  const bool is_late = world().rank() == 1;
  if (!is_late) {
    nccl.gather(b.mine.data(), b.all.data(), 4);
    nccl.settle();
    ncclComm_t part = nullptr;
    CHECK(ncclCommSplit(nccl.comm, 0, 0, &part, nullptr) == ncclInvalidUsage);
    CHECK(misuses.tell("ncclCommSplit"));
    CHECK(misuses.tell("while its operations are in flight"));
  }
  world().barrier("tried");
  if (is_late) nccl.gather(b.mine.data(), b.all.data(), 4);
  nccl.settle();
  CHECK(nccl.finish() == ncclSuccess);
}

TEST_CASE("Misuse: peers outside, and rows that are sent and not received", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  CHECK(ncclSend(b.mine.data(), 4, ncclFloat32, world().size(), nccl.comm, nccl.stream) ==
        ncclInvalidUsage);
  CHECK(misuses.tell("is outside the communicator"));
  if (world().rank() > 1) return;
  const int peer = 1 - world().rank();
  ncclGroupStart();
  ncclSend(b.mine.data(), 4, ncclFloat32, peer, nccl.comm, nccl.stream);
  ncclRecv(b.all.data(), world().rank() == 0 ? 4 : 5, ncclFloat32, peer, nccl.comm, nccl.stream);
  ncclGroupEnd();
  CHECK(nccl.finish() != ncclSuccess);
  CHECK(misuses.tell("rank 0 calls ncclSend of 4 x f32 to 1 where rank 1 calls ncclRecv of 5"));
}

TEST_CASE("Misuse: buffers that overlap and are not in place", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  CHECK(nccl.gather(b.all.data() + 1, b.all.data(), 4) == ncclInvalidUsage);
  CHECK(ncclReduceScatter(b.all.data(), b.all.data() + 2, 4, ncclFloat32, ncclSum, nccl.comm,
                          nccl.stream) == ncclInvalidUsage);
  CHECK(misuses.tell("overlaps what is received, and is not in place"));
  ncclGroupStart();
  for (int i = 0; i < 2; ++i) {
    ncclBroadcast(b.mine.data(), b.all.data() + i, 4, ncclFloat32, 0, nccl.comm, nccl.stream);
  }
  CHECK(ncclGroupEnd() == ncclInvalidUsage);
  CHECK(misuses.tell("touch the same memory"));
}

TEST_CASE("Misuse: a collective that does not wait for the kernel before it", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  nccl_double::begin_kernel("narrow");
  nccl_double::end_kernel();
  nccl.gather(b.mine.data(), b.all.data(), 4);
  CHECK(misuses.tell("does not wait for the kernel 'narrow'"));
  nccl.settle();
  nccl.finish();
  world().barrier("all have finished");
}

TEST_CASE("Misuse: a result that is read, and data that is changed, without a wait", "[nccl]") {
  const Misuses misuses;
  Buffers b;
  {
    Nccl nccl(world());
    nccl.gather(b.mine.data(), b.all.data(), 4);
    const std::size_t other = world().rank() == 0 ? 4 : 0;
    CHECK(b.all[other] != b.all[other]);
    nccl.settle();
    CHECK(nccl.finish() == ncclSuccess);
    CHECK(b.all[other] == 1.0f);
    world().barrier("all have finished");
  }
  Nccl nccl(world());
  nccl.gather(b.mine.data(), b.all.data(), 4);
  b.mine[0] = 2.0f;
  CHECK(nccl.finish() != ncclSuccess);
  CHECK(misuses.tell("was changed after the call"));
  world().barrier("all have finished");
}

TEST_CASE("Misuse: two streams that touch the same memory", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world()), other(world());
  Buffers b;
  nccl.gather(b.mine.data(), b.all.data(), 4);
  nccl.settle();
  cudaEventRecord(nccl.event, nccl.stream);
  CHECK(misuses.text().empty());
  nccl.gather(b.mine.data(), b.all.data(), 4);
  cudaMemcpyAsync(b.all.data() + 2, b.mine.data(), 8, cudaMemcpyDeviceToDevice, other.stream);
  CHECK(misuses.tell("touch the same memory, and neither waits for the other"));
  nccl.settle();
  nccl.finish();
  world().barrier("all have finished");
}

TEST_CASE("Misuse: a stream that is gone", "[nccl]") {
  const Misuses misuses;
  Nccl nccl(world());
  Buffers b;
  cudaStream_t gone = nullptr;
  cudaStreamCreateWithPriority(&gone, cudaStreamNonBlocking, 0);
  cudaStreamDestroy(gone);
  CHECK(ncclAllGather(b.mine.data(), b.all.data(), 4, ncclFloat32, nccl.comm, gone) ==
        ncclInvalidUsage);
  CHECK(misuses.tell("no such stream"));
}
