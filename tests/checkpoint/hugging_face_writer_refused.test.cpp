// SPDX-License-Identifier: Apache-2.0
// What is on disk, and what all ranks say, when an export does not come to its end.
#include <fcntl.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <set>

#include "exported_model.hpp"
#include "same_error.hpp"
#include "support/temporary_directory.hpp"

using namespace tessera;
using namespace tessera::checkpoint;
using Catch::Contains;
using comm::ProcessGrid;
using Model = test::ExportedModel;

namespace fs = std::filesystem;

namespace {

bool exists(const ProcessGrid& grid, const fs::path& path) {
  grid.world().barrier("look at files");
  const bool found = fs::exists(path);
  grid.world().barrier("looked at files");
  return found;
}

/// Made by rank 0, seen by all.
void make_file(const ProcessGrid& grid, const fs::path& path) {
  if (grid.world().rank() == 0) {
    fs::create_directories(path.parent_path());
    std::ofstream(path) << "old";
  }
  grid.world().barrier("file is there");
}

/// Names that were made, removed or renamed in `directory` while `body` ran, as rank 0 saw it.
std::set<std::string> names_seen(const ProcessGrid& grid, const fs::path& directory,
                                 const std::function<void()>& body) {
  const int watch = ::inotify_init1(IN_NONBLOCK);
  if (grid.world().rank() == 0)
    CHECK(::inotify_add_watch(watch, directory.c_str(), IN_CREATE | IN_MOVE | IN_DELETE) >= 0);
  grid.world().barrier("watched");
  body();
  grid.world().barrier("done");
  std::set<std::string> names;
  alignas(inotify_event) char events[16 << 10];
  for (ssize_t count = 0; (count = ::read(watch, events, sizeof events)) > 0;)
    for (const char* at = events; at < events + count;) {
      const auto* event = reinterpret_cast<const inotify_event*>(at);
      if (event->len > 0) names.insert(event->name);
      at += sizeof(inotify_event) + event->len;
    }
  ::close(watch);
  return names;
}

}  // namespace

TEST_CASE("a value that its element type cannot hold is an error that names its tensor") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  Model model;
  model.origins["embed"] = {{Dtype::f16}};
  {
    HuggingFaceWriter writer(grid.world(), directory / "out", model.all(), model.origins, {}, {});
    const test::Shard mine = test::deal_unit(grid, model.dense);
    std::vector<float> shard(std::size_t(mine.num_elements), 65519.0f);
    for (const Slice& slice : mine.slices)
      if (slice.parameter->name == "embed" && slice.begin == 0)
        shard[std::size_t(slice.shard_offset + 3)] = -65520.0f;
    writer.write(mine.slices, shard, {});
    CHECK_THAT(test::same_error(grid.world(), ErrorKind::numeric, [&] { writer.commit(); }),
               Contains("'embed'") && Contains("f16") && Contains("-65520"));
  }
  CHECK_FALSE(exists(grid, directory / "out.partial"));
  CHECK_FALSE(exists(grid, directory / "out"));
}

TEST_CASE("infinity has no MXFP4 form, and the error names its tensor") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  HuggingFaceWriter writer(grid.world(), directory / "out", model.all(), model.origins, {}, {});
  const test::Shard mine = test::deal_unit(grid, model.expert);
  writer.write(mine.slices, std::vector<float>(std::size_t(mine.num_elements), INFINITY), {});
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::numeric, [&] { writer.commit(); }),
             Contains("'fp4'") && Contains("MXFP4"));
}

TEST_CASE("bytes that no rank wrote are found before the directory gets its name") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  HuggingFaceWriter writer(grid.world(), directory / "out", model.all(), model.origins, {}, {});
  test::write_unit(writer, grid, model, model.dense);
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::internal, [&] { writer.commit(); }),
             Contains("0 of 2860 bytes of 'up'"));
  CHECK_FALSE(exists(grid, directory / "out"));
}

TEST_CASE("a slice that was not announced, or that cuts an MXFP4 block, is an error of all ranks") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  const Parameter stranger{.name = "stranger", .shape = {40}};
  for (const Parameter& parameter : {stranger, model.expert[2]}) {
    HuggingFaceWriter writer(grid.world(), directory / "out", model.all(), model.origins, {}, {});
    const Slice slice{&parameter, 0, 40, 0};
    const bool is_last = grid.world().rank() == grid.world().size() - 1;
    writer.write({&slice, std::size_t(is_last)}, std::vector<float>(40), {});
    CHECK_THAT(test::same_error(grid.world(), ErrorKind::internal, [&] { writer.commit(); }),
               Contains("'" + parameter.name + "'") &&
                   Contains(fmt::format("[rank {} of", grid.world().size() - 1)));
  }
}

TEST_CASE("a full disk is an error of all ranks and leaves nothing") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  const int last = grid.world().size() - 1;
  for (const int rank : {0, last}) {
    setenv("TESSERA_FAULT", fmt::format("diskfull:{}", rank).c_str(), 1);
    const std::string message = test::same_error(
        grid.world(), ErrorKind::file, [&] { test::save(grid, model, directory / "out"); });
    unsetenv("TESSERA_FAULT");
    CHECK_THAT(message, rank == 0 ? Contains("0.000 GiB are free") : Contains("No space left"));
    CHECK_FALSE(exists(grid, directory / "out.partial"));
    CHECK_FALSE(exists(grid, directory / "out"));
  }
}

TEST_CASE("what exists is replaced only when asked for, and only if an export could have made it") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const fs::path out = directory / "out";
  const Model model;
  const auto refused = [&](const fs::path& path, bool overwrite) {
    return test::same_error(grid.world(), ErrorKind::usage,
                            [&] { test::save(grid, model, path, {.overwrite = overwrite}); });
  };
  make_file(grid, out / "old.safetensors");
  CHECK_THAT(refused(out, false), Contains("--overwrite"));
  CHECK_THAT(refused(out / "old.safetensors", true), Contains("no directory"));
  CHECK(exists(grid, out / "old.safetensors"));
  test::save(grid, model, out / "", {.overwrite = true});
  CHECK_FALSE(exists(grid, out / "old.safetensors"));
  CHECK_FALSE(exists(grid, out.string() + ".replaced"));
  CHECK(exists(grid, out / "model.safetensors"));
  make_file(grid, out / "step-00000007.h5");
  CHECK_THAT(refused(out, true), Contains("step-00000007.h5"));
  CHECK(exists(grid, out / "model.safetensors"));
}

/// Whether the file system can let two directories change places.
bool can_exchange(const fs::path& directory) {
  const fs::path a = directory / "a", b = directory / "b";
  fs::create_directory(a);
  fs::create_directory(b);
  const bool can = ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
  fs::remove(a);
  fs::remove(b);
  return can;
}

TEST_CASE("an export takes the old one's place in one step, or the old one steps aside") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  const fs::path out = directory / "out";
  for (const bool exchanges : {true, false}) {
    make_file(grid, out / "old.safetensors");
    if (!exchanges) setenv("TESSERA_FAULT", "noexchange:0", 1);
    const std::set<std::string> seen = names_seen(
        grid, directory.path(), [&] { test::save(grid, model, out, {.overwrite = true}); });
    unsetenv("TESSERA_FAULT");
    if (grid.world().rank() == 0 && (can_exchange(directory.path()) || !exchanges))
      CHECK(seen.contains("out.replaced") == !exchanges);
    CHECK(exists(grid, out / "model.safetensors"));
    for (const char* gone : {"out/old.safetensors", "out.partial", "out.replaced"})
      CHECK_FALSE(exists(grid, directory / gone));
  }
}

TEST_CASE("a link to a directory stays one, and the directory behind it is replaced") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  for (const bool is_empty : {true, false}) {
    if (grid.world().rank() == 0) {
      fs::create_directories(directory / "far/target");
      if (is_empty) fs::create_directory_symlink("far/target", directory / "link");
    }
    grid.world().barrier("link is there");
    test::save(grid, model, directory / "link", {.overwrite = !is_empty});
    CHECK(fs::is_symlink(directory / "link"));
    CHECK(exists(grid, directory / "far/target/model.safetensors"));
    CHECK_FALSE(exists(grid, directory / "far/target.replaced"));
  }
}

TEST_CASE("what a killed export left is removed, and an empty directory is taken") {
  const ProcessGrid grid(MPI_COMM_WORLD, {1});
  const test::TemporaryDirectory directory(grid.world());
  const Model model;
  make_file(grid, directory / "out.partial/model.safetensors");
  if (grid.world().rank() == 0) fs::create_directory(directory / "out");
  test::save(grid, model, directory / "out");
  CHECK_FALSE(exists(grid, directory / "out.partial"));
  if (grid.world().rank() == 0)
    CHECK(test::differing(test::read_tensors(directory / "out"), model.expected()) == "");
  grid.world().barrier("compared");
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::file,
                              [&] { test::save(grid, model, directory / "nowhere/out"); }),
             Contains("No such file or directory"));
  make_file(grid, directory / "file");
  CHECK_THAT(test::same_error(grid.world(), ErrorKind::file,
                              [&] { test::save(grid, model, directory / "file/out"); }),
             Contains("Not a directory"));
}
