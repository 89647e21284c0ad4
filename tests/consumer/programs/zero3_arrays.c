/* SPDX-License-Identifier: Apache-2.0 */
/* A C code that shards its own parameters: it fits a small two-layer network y = w2 tanh(W1 x + b1) to a function, each
 * rank on its part of the samples. Parameters, gradients and AdamW's moments are spread over the ranks by Tessera; each
 * array is whole only while it is used. Checked against the same steps of a plain AdamW on one rank's whole arrays, and
 * through a save and a load. Usage: zero3_arrays FILE (where the save goes) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tessera/tessera.h>

enum { INPUTS = 3, HIDDEN = 50, SAMPLES = 96, STEPS = 40, SAVE_AFTER = 25, ARRAYS = 3 };
enum { W1, B1, W2 };
static const char* const names[ARRAYS] = {"layer1.weight", "layer1.bias", "layer2.weight"};
static const int64_t sizes[ARRAYS] = {INPUTS * HIDDEN, HIDDEN, HIDDEN};
static const int decays[ARRAYS] = {1, 0, 1};

static void must(tessera_status status) {
  if (status == TESSERA_OK) return;
  fprintf(stderr, "%s error: %s\n", tessera_status_name(status), tessera_message());
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static void expect(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "FAILED: %s\n", what);
  MPI_Abort(MPI_COMM_WORLD, 1);
}

static float initial_value(int array, int64_t i) { return 0.5f * (float)sin(1.7 * (double)(i + 1) + array); }

static void sample(int n, float x[INPUTS], float* y) {
  for (int j = 0; j < INPUTS; ++j) x[j] = (float)sin(0.9 * (n + 1) * (j + 1));
  *y = x[0] * x[1] + 0.5f * x[2];
}

/* Adds the gradient of the mean squared error of samples first, first + stride, ...; returns their part of the error. */
static double add_gradient(int first, int stride, const float* w1, const float* b1, const float* w2, float* dw1,
                           float* db1, float* dw2) {
  double error = 0.0;
  for (int n = first; n < SAMPLES; n += stride) {
    float x[INPUTS], y, h[HIDDEN], prediction = 0.0f;
    sample(n, x, &y);
    for (int i = 0; i < HIDDEN; ++i) {
      float sum = b1[i];
      for (int j = 0; j < INPUTS; ++j) sum += w1[i * INPUTS + j] * x[j];
      h[i] = tanhf(sum);
      prediction += w2[i] * h[i];
    }
    const float d = 2.0f * (prediction - y) / SAMPLES; /* of the mean over all ranks' samples: sums are right then */
    error += (double)(prediction - y) * (prediction - y) / SAMPLES;
    for (int i = 0; i < HIDDEN; ++i) {
      const float dh = d * w2[i] * (1.0f - h[i] * h[i]);
      dw2[i] += d * h[i];
      db1[i] += dh;
      for (int j = 0; j < INPUTS; ++j) dw1[i * INPUTS + j] += dh * x[j];
    }
  }
  return error;
}

/* One step of the sharded code. Returns the error over all ranks' samples, before it. */
static double sharded_step(tessera_zero3* arrays, const tessera_adamw* adamw, int rank, int size, MPI_Comm own) {
  const float* values[ARRAYS];
  float* gradients[ARRAYS];
  for (int a = 0; a < ARRAYS; ++a) {
    if (a + 1 < ARRAYS) must(tessera_zero3_prefetch(arrays, a + 1)); /* on its way while the one before is used */
    must(tessera_zero3_gather(arrays, a, &values[a]));
    must(tessera_zero3_gradient(arrays, a, &gradients[a]));
  }
  double error = add_gradient(rank, size, values[W1], values[B1], values[W2], gradients[W1], gradients[B1],
                              gradients[W2]);
  for (int a = 0; a < ARRAYS; ++a) {
    must(tessera_zero3_release(arrays, a));
    must(tessera_zero3_reduce(arrays, a));
  }
  double norm;
  int updated;
  must(tessera_zero3_step(arrays, adamw, &norm, &updated));
  expect(updated && isfinite(norm) && norm > 0.0, "the step is done");
  MPI_Allreduce(MPI_IN_PLACE, &error, 1, MPI_DOUBLE, MPI_SUM, own);
  return error;
}

/* The same with whole arrays and no library: torch's AdamW and clip_grad_norm_, in double. */
static void plain_steps(const tessera_adamw* o, int num_steps, float* const p[ARRAYS]) {
  static double m[ARRAYS][INPUTS * HIDDEN], v[ARRAYS][INPUTS * HIDDEN];
  for (int step = 1; step <= num_steps; ++step) {
    static float g[ARRAYS][INPUTS * HIDDEN];
    memset(g, 0, sizeof g);
    add_gradient(0, 1, p[W1], p[B1], p[W2], g[W1], g[B1], g[W2]);
    double squares = 0.0;
    for (int a = 0; a < ARRAYS; ++a)
      for (int64_t i = 0; i < sizes[a]; ++i) squares += (double)g[a][i] * g[a][i];
    const double scale = fmin(1.0, o->max_norm / (sqrt(squares) + 1e-6));
    for (int a = 0; a < ARRAYS; ++a)
      for (int64_t i = 0; i < sizes[a]; ++i) {
        const double gradient = scale * g[a][i];
        m[a][i] = o->beta1 * m[a][i] + (1.0 - o->beta1) * gradient;
        v[a][i] = o->beta2 * v[a][i] + (1.0 - o->beta2) * gradient * gradient;
        const double m_hat = m[a][i] / (1.0 - pow(o->beta1, step)), v_hat = v[a][i] / (1.0 - pow(o->beta2, step));
        double value = p[a][i] * (1.0 - (decays[a] ? o->learning_rate * o->weight_decay : 0.0));
        p[a][i] = (float)(value - o->learning_rate * m_hat / (sqrt(v_hat) + o->epsilon));
      }
  }
}

static tessera_zero3* new_arrays(tessera_grid* grid) {
  tessera_zero3* arrays;
  must(tessera_zero3_create(grid, ARRAYS, names, sizes, decays, &arrays));
  return arrays;
}

static void set_initial_values(tessera_zero3* arrays) {
  for (int a = 0; a < ARRAYS; ++a) {
    int64_t begin, count;
    must(tessera_zero3_range(arrays, a, &begin, &count));
    float* mine = malloc((size_t)(count + 1) * sizeof(float)); /* this rank makes what it owns, and no more */
    for (int64_t i = 0; i < count; ++i) mine[i] = initial_value(a, begin + i);
    must(tessera_zero3_set(arrays, a, mine));
    free(mine);
  }
}

/* The largest difference of any element, relative to 1. */
static double distance(tessera_zero3* arrays, float* const expected[ARRAYS]) {
  double largest = 0.0;
  for (int a = 0; a < ARRAYS; ++a) {
    const float* values;
    must(tessera_zero3_gather(arrays, a, &values));
    for (int64_t i = 0; i < sizes[a]; ++i) largest = fmax(largest, fabs((double)values[i] - expected[a][i]));
    must(tessera_zero3_release(arrays, a));
  }
  return largest;
}

int main(int argc, char** argv) {
  int level, rank, size;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  expect(argc == 2, "usage: zero3_arrays FILE");
  MPI_Comm own; /* this code's communicator; Tessera works on duplicates of it */
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  MPI_Comm_rank(own, &rank);
  MPI_Comm_size(own, &size);

  must(tessera_start(own, MPI_THREAD_FUNNELED));
  tessera_grid* grid;
  must(tessera_grid_create(own, 1, &grid));
  tessera_adamw adamw = tessera_adamw_defaults();
  adamw.learning_rate = 2e-2;
  adamw.weight_decay = 0.1;
  adamw.max_norm = 0.5;

  tessera_zero3* arrays = new_arrays(grid);
  set_initial_values(arrays);
  double first_error = 0.0, last_error = 0.0;
  for (int step = 1; step <= SAVE_AFTER; ++step) {
    last_error = sharded_step(arrays, &adamw, rank, size, own);
    if (step == 1) first_error = last_error;
  }
  must(tessera_zero3_save(arrays, argv[1], NULL));
  tessera_zero3_destroy(arrays);

  arrays = new_arrays(grid); /* the rest of the run goes on from the file, moments and step count included */
  must(tessera_zero3_load(arrays, argv[1]));
  for (int step = SAVE_AFTER + 1; step <= STEPS; ++step) last_error = sharded_step(arrays, &adamw, rank, size, own);

  float* expected[ARRAYS];
  for (int a = 0; a < ARRAYS; ++a) {
    expected[a] = malloc((size_t)sizes[a] * sizeof(float));
    for (int64_t i = 0; i < sizes[a]; ++i) expected[a][i] = initial_value(a, i);
  }
  plain_steps(&adamw, STEPS, expected);
  const double difference = distance(arrays, expected);
  if (rank == 0)
    printf("%d ranks: mean squared error %.4f to %.4f; largest difference from plain AdamW %.1e\n", size, first_error,
           last_error, difference);
  expect(difference < 2e-5, "sharded AdamW is plain AdamW");
  expect(last_error < 0.2 * first_error, "the network has learned");

  for (int a = 0; a < ARRAYS; ++a) free(expected[a]);
  tessera_zero3_destroy(arrays);
  tessera_grid_destroy(grid);
  must(tessera_stop());
  MPI_Comm_free(&own);
  MPI_Finalize();
  return 0;
}
