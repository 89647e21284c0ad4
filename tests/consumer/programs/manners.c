/* SPDX-License-Identifier: Apache-2.0 */
/* What a host program may expect of a library, each as a run of its own. Usage: manners WHAT MODEL_DIRECTORY FOLDER */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tessera/tessera.h>
#include <unistd.h>

extern char** environ;
static MPI_Comm own = MPI_COMM_NULL; /* the host's communicator */
static int rank, size;
static const char *model, *folder;

static void expect_at(int line, int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "manners.c:%d: FAILED: %s; the last message: %s\n", line, what, tessera_message());
  MPI_Abort(MPI_COMM_WORLD, 1);
}
#define EXPECT(condition) expect_at(__LINE__, (condition), #condition)
#define MUST(call) expect_at(__LINE__, (call) == TESSERA_OK, #call)

/* ---- the library's MPI calls pass by here on their way to MPI ---- */

static int is_watched, num_foreign_calls, num_made, num_freed;

static void note_communication(MPI_Comm communicator, const char* call) {
  if (!is_watched || (communicator != MPI_COMM_WORLD && communicator != MPI_COMM_SELF && communicator != own)) return;
  ++num_foreign_calls;
  fprintf(stderr, "%s on a communicator of the host\n", call);
}
int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm c, MPI_Request* r) {
  note_communication(c, "MPI_Isend");
  return PMPI_Isend(data, count, type, to, tag, c, r);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int from, int tag, MPI_Comm c, MPI_Request* r) {
  note_communication(c, "MPI_Irecv");
  return PMPI_Irecv(data, count, type, from, tag, c, r);
}
int MPI_Ibarrier(MPI_Comm c, MPI_Request* r) {
  note_communication(c, "MPI_Ibarrier");
  return PMPI_Ibarrier(c, r);
}
int MPI_Ibcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm c, MPI_Request* r) {
  note_communication(c, "MPI_Ibcast");
  return PMPI_Ibcast(data, count, type, root, c, r);
}
int MPI_Iallreduce(const void* send, void* receive, int count, MPI_Datatype type, MPI_Op op, MPI_Comm c, MPI_Request* r) {
  note_communication(c, "MPI_Iallreduce");
  return PMPI_Iallreduce(send, receive, count, type, op, c, r);
}
int MPI_Comm_set_errhandler(MPI_Comm c, MPI_Errhandler handler) {
  note_communication(c, "MPI_Comm_set_errhandler");
  return PMPI_Comm_set_errhandler(c, handler);
}
int MPI_Comm_dup(MPI_Comm c, MPI_Comm* made) {
  num_made += is_watched;
  return PMPI_Comm_dup(c, made);
}
int MPI_Comm_split(MPI_Comm c, int colour, int key, MPI_Comm* made) {
  note_communication(c, "MPI_Comm_split");
  num_made += is_watched;
  return PMPI_Comm_split(c, colour, key, made);
}
int MPI_Comm_split_type(MPI_Comm c, int type, int key, MPI_Info info, MPI_Comm* made) {
  note_communication(c, "MPI_Comm_split_type");
  num_made += is_watched;
  return PMPI_Comm_split_type(c, type, key, info, made);
}
int MPI_Comm_free(MPI_Comm* c) {
  num_freed += is_watched;
  return PMPI_Comm_free(c);
}

/* ---- the host ---- */

static void start_host(int argc, char** argv, int level) {
  int given;
  MPI_Init_thread(&argc, &argv, level, &given);
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  MPI_Comm_rank(own, &rank);
  MPI_Comm_size(own, &size);
}

static void end_host(void) {
  MPI_Comm_free(&own);
  MPI_Finalize();
}

static tessera_grid* new_grid(int expert) {
  tessera_grid* grid;
  MUST(tessera_grid_create(own, expert, &grid));
  return grid;
}

static tessera_trainer* new_trainer(tessera_grid* grid) {
  char path[1024], configuration[4096];
  snprintf(path, sizeof path, "%s/tokens.u16", folder);
  if (rank == 0) {
    FILE* file = fopen(path, "wb");
    EXPECT(file != NULL);
    for (int i = 0, token = 3; i < 32 * 24; ++i, token = (token * 5 + 3) % 251) {
      fputc(token, file);
      fputc(0, file);
    }
    fclose(file);
  }
  MPI_Barrier(own);
  snprintf(configuration, sizeof configuration,
           "model = '%s'\ndata = '%s'\nsequence-length = 24\nbatch = 3\nsteps = 4\nlr = 1e-2\nheld-out = 3\n", model,
           path);
  tessera_trainer* trainer;
  MUST(tessera_trainer_create(grid, configuration, &trainer));
  return trainer;
}

/* A bit of everything. */
static void exercise(void) {
  tessera_grid* grid = new_grid(1);
  tessera_trainer* trainer = new_trainer(grid);
  tessera_step step;
  MUST(tessera_trainer_step(trainer, &step));
  EXPECT(step.step == 1 && step.updated && step.loss > 0.0);
  char path[1024];
  snprintf(path, sizeof path, "%s/exercise.h5", folder);
  MUST(tessera_trainer_save(trainer, path, NULL));
  tessera_trainer_destroy(trainer);
  tessera_grid_destroy(grid);
}

/* ---- what is expected ---- */

static void thread_levels(int argc, char** argv, int level) {
  start_host(argc, argv, level);
  const tessera_status status = tessera_start(own, MPI_THREAD_FUNNELED);
  if (level < MPI_THREAD_FUNNELED) {
    EXPECT(status == TESSERA_ERROR_USAGE);
    EXPECT(strstr(tessera_message(), "MPI_THREAD_SINGLE, but MPI_THREAD_FUNNELED is needed") != NULL);
    MUST(tessera_start(own, MPI_THREAD_SINGLE)); /* the host takes it on itself */
  } else {
    EXPECT(status == TESSERA_OK);
  }
  exercise();
  MUST(tessera_stop());
  end_host();
}

/* MPI is started by Tessera where the host has not, and ended with it. */
static void starts_mpi(void) {
  int flag;
  MUST(tessera_start(MPI_COMM_WORLD, MPI_THREAD_FUNNELED));
  MPI_Initialized(&flag);
  EXPECT(flag);
  MUST(tessera_start(MPI_COMM_WORLD, MPI_THREAD_FUNNELED)); /* a second library of the same program */
  MUST(tessera_stop());
  own = MPI_COMM_WORLD;
  MPI_Comm_rank(own, &rank);
  exercise();
  MPI_Finalized(&flag);
  EXPECT(!flag);
  MUST(tessera_stop());
  MPI_Finalized(&flag);
  EXPECT(flag);
  EXPECT(tessera_start(MPI_COMM_WORLD, MPI_THREAD_FUNNELED) == TESSERA_ERROR_USAGE);
}

static unsigned long hash_of_environment(void) {
  unsigned long hash = 5381;
  for (char** variable = environ; *variable != NULL; ++variable)
    for (const char* c = *variable; *c != '\0'; ++c) hash = hash * 33 + (unsigned char)*c;
  return hash;
}

static int num_messages;
static void count_message(tessera_log_level level, const char* text, void* user) {
  (void)level;
  EXPECT(user == &num_messages && text[0] != '\0');
  ++num_messages;
}

/* Signals, environment, stdout and log are the host's, and the library talks on its own communicators alone. */
static void leaves_alone(int argc, char** argv) {
  start_host(argc, argv, MPI_THREAD_FUNNELED);
  struct sigaction before[32], after;
  for (int s = 1; s < 32; ++s) sigaction(s, NULL, &before[s]);
  const unsigned long environment = hash_of_environment();
  char path[1024];
  snprintf(path, sizeof path, "%s/stdout.%d", folder, rank);
  fflush(stdout);
  const int stdout_before = dup(STDOUT_FILENO);
  EXPECT(freopen(path, "w", stdout) != NULL);

  tessera_set_log(count_message, &num_messages);
  MUST(tessera_start(own, MPI_THREAD_FUNNELED));
  is_watched = 1;
  exercise();
  tessera_grid* grid = new_grid(1);
  tessera_checkpoint* nothing;
  EXPECT(tessera_checkpoint_open(grid, "/no/such/model", &nothing) == TESSERA_ERROR_FILE); /* and the host lives on */
  tessera_grid_destroy(grid);
  is_watched = 0;
  MUST(tessera_stop());
  tessera_set_log(NULL, NULL);

  fflush(stdout);
  struct stat written;
  EXPECT(fstat(STDOUT_FILENO, &written) == 0 && written.st_size == 0);
  dup2(stdout_before, STDOUT_FILENO);
  for (int s = 1; s < 32; ++s) {
    sigaction(s, NULL, &after);
    EXPECT(after.sa_handler == before[s].sa_handler && after.sa_flags == before[s].sa_flags);
  }
  EXPECT(hash_of_environment() == environment);
  EXPECT(num_foreign_calls == 0);
  EXPECT(num_made > 4 && num_made == num_freed);
  end_host();
}

/* Two trainers on two grids, in turns, are as two that run alone. */
static void two_instances(int argc, char** argv) {
  enum { STEPS = 3 };
  start_host(argc, argv, MPI_THREAD_FUNNELED);
  MUST(tessera_start(own, MPI_THREAD_FUNNELED));
  double alone[STEPS];
  tessera_grid* one = new_grid(1);
  tessera_trainer* trainer = new_trainer(one);
  tessera_step step;
  for (int i = 0; i < STEPS; ++i) {
    MUST(tessera_trainer_step(trainer, &step));
    alone[i] = step.loss;
  }
  tessera_trainer_destroy(trainer);

  tessera_grid* two = new_grid(size); /* all experts apart */
  tessera_trainer *a = new_trainer(one), *b = new_trainer(two);
  tessera_grid_destroy(one); /* what was made on it keeps it */
  for (int i = 0; i < STEPS; ++i) {
    MUST(tessera_trainer_step(a, &step));
    EXPECT(step.loss == alone[i]);
    MUST(tessera_trainer_step(b, &step));
    EXPECT(fabs(step.loss - alone[i]) < 1e-4 * alone[i]);
  }
  tessera_trainer_destroy(a);
  tessera_trainer_destroy(b);
  tessera_grid_destroy(two);
  MUST(tessera_stop());
  end_host();
}

static void expect_same_error(tessera_status status, tessera_status wanted, const char* part) {
  char first[1024] = "";
  EXPECT(status == wanted);
  EXPECT(strstr(tessera_message(), part) != NULL);
  if (rank == 0) snprintf(first, sizeof first, "%s", tessera_message());
  MPI_Bcast(first, sizeof first, MPI_CHAR, 0, own);
  EXPECT(strncmp(first, tessera_message(), sizeof first - 1) == 0);
}

/* What one rank alone gets wrong, or cannot read, is the error of all. */
static void same_errors(int argc, char** argv) {
  start_host(argc, argv, MPI_THREAD_FUNNELED);
  MUST(tessera_start(own, MPI_THREAD_FUNNELED));
  const int is_last = rank == size - 1;
  tessera_grid* grid = NULL;
  expect_same_error(tessera_grid_create(own, size + 1, &grid), TESSERA_ERROR_USAGE, "expert");
  grid = new_grid(1);
  tessera_checkpoint* checkpoint = NULL;
  expect_same_error(tessera_checkpoint_open(grid, is_last ? NULL : model, &checkpoint), TESSERA_ERROR_USAGE, "NULL");
  expect_same_error(tessera_checkpoint_open(grid, "/no/such/model", &checkpoint), TESSERA_ERROR_FILE, "/no/such/model");
  tessera_trainer* trainer = NULL;
  expect_same_error(tessera_trainer_create(grid, is_last ? "bach = 3" : "data = 'x'\nmodel = 'y'", &trainer),
                    TESSERA_ERROR_USAGE, "key 'bach'");
  const char* names[2] = {"a", is_last ? "other" : "b"};
  const int64_t sizes[2] = {100, 7};
  tessera_zero3* arrays = NULL;
  const tessera_status status = tessera_zero3_create(grid, 2, names, sizes, NULL, &arrays);
  if (size > 1) expect_same_error(status, TESSERA_ERROR_USAGE, "other");
  names[1] = "b";
  MUST(tessera_zero3_create(grid, 2, names, sizes, NULL, &arrays));
  expect_same_error(tessera_zero3_reduce(arrays, is_last ? 2 : 1), TESSERA_ERROR_USAGE, "array 2 does not exist");

  tessera_fields* fields; /* two ranks' boxes leave a gap, or overlap */
  MUST(tessera_fields_create(&fields));
  const int64_t shape = 4 * size, start = 4 * rank, count = is_last ? 3 : 4;
  const double data[4] = {1, 2, 3, 4};
  MUST(tessera_fields_add(fields, "x", TESSERA_F64, 1, &shape, &start, &count, data));
  char path[1024];
  snprintf(path, sizeof path, "%s/gap.h5", folder);
  expect_same_error(tessera_zero3_save(arrays, path, fields), TESSERA_ERROR_USAGE, "each element is given by one rank");
  EXPECT(access(path, F_OK) != 0);
  tessera_fields_destroy(fields);
  expect_same_error(tessera_zero3_load(arrays, path), TESSERA_ERROR_FILE, "gap.h5");
  tessera_zero3_destroy(arrays);
  tessera_grid_destroy(grid);
  MUST(tessera_stop());
  end_host();
}

static long resident_pages(void) {
  long total, resident;
  FILE* file = fopen("/proc/self/statm", "r");
  EXPECT(fscanf(file, "%ld %ld", &total, &resident) == 2);
  fclose(file);
  return resident;
}

/* Neither memory nor communicators grow. */
static void thousand_times(int argc, char** argv) {
  enum { WARM = 200, TIMES = 1000 };
  start_host(argc, argv, MPI_THREAD_FUNNELED);
  MUST(tessera_start(own, MPI_THREAD_FUNNELED));
  const char* names[2] = {"a", "b"};
  const int64_t sizes[2] = {10000, 77};
  const tessera_adamw adamw = tessera_adamw_defaults();
  long pages = 0;
  is_watched = 1;
  for (int i = 0; i < TIMES; ++i) {
    if (i == WARM) pages = resident_pages();
    tessera_grid* grid = new_grid(i % 2 == 0 ? 1 : size);
    tessera_zero3* arrays;
    MUST(tessera_zero3_create(grid, 2, names, sizes, NULL, &arrays));
    float* gradient;
    MUST(tessera_zero3_gradient(arrays, 0, &gradient));
    gradient[5] = 1.0f;
    MUST(tessera_zero3_reduce(arrays, 0));
    MUST(tessera_zero3_step(arrays, &adamw, NULL, NULL));
    const float* values;
    MUST(tessera_zero3_gather(arrays, 0, &values));
    EXPECT(values[5] < 0.0f && values[6] == 0.0f);
    MUST(tessera_zero3_release(arrays, 0));
    tessera_zero3_destroy(arrays);
    tessera_grid_destroy(grid);
  }
  is_watched = 0;
  const long grown_kib = (resident_pages() - pages) * (sysconf(_SC_PAGESIZE) / 1024);
  if (rank == 0) printf("%d times: %d communicators made and freed, %ld KiB more than after %d times\n", TIMES, num_made,
                        grown_kib, WARM);
  EXPECT(num_made == num_freed && num_made >= TIMES);
  EXPECT(grown_kib < 1024);
  MUST(tessera_stop());
  end_host();
}

int main(int argc, char** argv) {
  EXPECT(argc == 4);
  const char* what = argv[1];
  model = argv[2];
  folder = argv[3];
  if (strcmp(what, "single") == 0) thread_levels(argc, argv, MPI_THREAD_SINGLE);
  else if (strcmp(what, "funneled") == 0) thread_levels(argc, argv, MPI_THREAD_FUNNELED);
  else if (strcmp(what, "serialized") == 0) thread_levels(argc, argv, MPI_THREAD_SERIALIZED);
  else if (strcmp(what, "multiple") == 0) thread_levels(argc, argv, MPI_THREAD_MULTIPLE);
  else if (strcmp(what, "starts_mpi") == 0) starts_mpi();
  else if (strcmp(what, "leaves_alone") == 0) leaves_alone(argc, argv);
  else if (strcmp(what, "two_instances") == 0) two_instances(argc, argv);
  else if (strcmp(what, "same_errors") == 0) same_errors(argc, argv);
  else if (strcmp(what, "thousand_times") == 0) thousand_times(argc, argv);
  else EXPECT(!"a known manner");
  return 0;
}
