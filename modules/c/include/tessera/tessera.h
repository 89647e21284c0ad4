/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * @brief Tessera for C, and for every language that calls C.
 *
 * Every function that can fail returns a status; tessera_message() then has the text. No C++ exception crosses this
 * border, and nothing here ends the process, catches signals or writes to stdout.
 *
 * "Collective over grid" means: all ranks of the grid call, in the same order, with equal arguments unless they are said
 * to be a rank's own. Then an error that one rank meets is the error of all of them: same status, same message. "Local"
 * functions do not communicate.
 *
 * Sizes and positions are counted in elements. Arrays are row-major (the last dimension runs fastest); memory that
 * callers pass in is host memory.
 */
#ifndef TESSERA_H
#define TESSERA_H

#include <mpi.h>
#include <stdint.h>
#include <tessera/version.h>

/** Marks what a shared library exports. */
#if defined(__GNUC__)
#define TESSERA_API __attribute__((visibility("default")))
#else
#define TESSERA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** What went wrong, in the terms of somebody who has to act on it. */
typedef enum tessera_status {
  TESSERA_OK = 0,
  TESSERA_ERROR_USAGE = 1,         /**< a wrong argument, or calls in a wrong order */
  TESSERA_ERROR_CONFIG = 2,        /**< a model's or training's configuration is invalid or not supported */
  TESSERA_ERROR_FILE = 3,          /**< a file cannot be opened, read or written */
  TESSERA_ERROR_FORMAT = 4,        /**< a file's content breaks its format */
  TESSERA_ERROR_KEYS = 5,          /**< tensors are missing, unexpected or misshapen */
  TESSERA_ERROR_MEMORY = 6,        /**< an allocation failed or a stated bound was exceeded */
  TESSERA_ERROR_COMMUNICATION = 7, /**< a collective failed, mismatched or passed its deadline */
  TESSERA_ERROR_NUMERIC = 8,       /**< NaN or infinity where none may be */
  TESSERA_ERROR_INTERRUPTED = 9,   /**< stopped on demand */
  TESSERA_ERROR_INTERNAL = 10      /**< a bug in Tessera */
} tessera_status;

/** Element types of fields. */
typedef enum tessera_type {
  TESSERA_F32 = 0, /**< float */
  TESSERA_F64 = 1, /**< double */
  TESSERA_I32 = 2, /**< int32_t */
  TESSERA_I64 = 3, /**< int64_t */
  TESSERA_U8 = 4   /**< uint8_t */
} tessera_type;

/** Weight of a log message. */
typedef enum tessera_log_level {
  TESSERA_LOG_DEBUG = 0,
  TESSERA_LOG_INFO = 1,
  TESSERA_LOG_WARNING = 2,
  TESSERA_LOG_ERROR = 3
} tessera_log_level;

/** Receives a message without its newline. `user` is what tessera_set_log() was given. May be called from any thread. */
typedef void (*tessera_log_callback)(tessera_log_level level, const char* text, void* user);

typedef struct tessera_grid tessera_grid;             /**< ranks and their axes: tessera_grid_create() */
typedef struct tessera_zero3 tessera_zero3;           /**< sharded arrays: tessera_zero3_create() */
typedef struct tessera_checkpoint tessera_checkpoint; /**< a file to read: tessera_checkpoint_open() */
typedef struct tessera_fields tessera_fields;         /**< a caller's arrays to save: tessera_fields_create() */
typedef struct tessera_trainer tessera_trainer;       /**< a training run: tessera_trainer_create() */

/* ---- version and errors ---- */

/** The version of the library at run time, to compare with TESSERA_VERSION. Local. */
TESSERA_API int tessera_version(void);

/** "0.1.0 (commit 1a2b3c4d5e6f, Release, GNU 12.2.0)". Lives as long as the program. Local. */
TESSERA_API const char* tessera_version_string(void);

/** The message of the last call of this thread that failed, "" before the first. Valid until the next failure in this
 * thread. Local. */
TESSERA_API const char* tessera_message(void);

/** "file", "format", ...; "ok" for TESSERA_OK. Local. */
TESSERA_API const char* tessera_status_name(tessera_status status);

/* ---- start and end ---- */

/** Adopts what runs and starts the rest: first thing in the program, before any grid.
 *
 * A running MPI is adopted; its thread level must be `thread_level` or higher. Otherwise MPI is started with
 * MPI_THREAD_MULTIPLE, which is collective over MPI_COMM_WORLD. A running Kokkos is adopted, too. Calls may be nested, as
 * by two libraries of one program: each has its tessera_stop(). Watches over waits from then on: what passes its deadline
 * (TESSERA_DEADLINE_S in the environment, else ten minutes) is told to the log.
 *
 * @param communicator whose rank 0 speaks for all in the log; MPI_COMM_WORLD where MPI does not run yet
 * @param thread_level lowest level that will do: MPI_THREAD_FUNNELED where one thread calls Tessera and MPI. What plain
 *        MPI_Init gives, MPI_THREAD_SINGLE, does where the caller says so here.
 * @return TESSERA_ERROR_USAGE: a thread level that is too low, or everything was stopped already. Local if MPI runs. */
TESSERA_API tessera_status tessera_start(MPI_Comm communicator, int thread_level);

/** tessera_start() with a Fortran handle (`comm%MPI_VAL` of mpi_f08). */
TESSERA_API tessera_status tessera_start_f(MPI_Fint communicator, int thread_level);

/** Ends what tessera_start() started, MPI and Kokkos where it did; after the last handle is destroyed. Kokkos cannot be
 * started twice: a program whose last tessera_stop() has ended it cannot start Tessera again. Collective over
 * MPI_COMM_WORLD if MPI is ended, else local. */
TESSERA_API tessera_status tessera_stop(void);

/** All messages go to `callback`; NULL: to stderr again. For the whole process. Local. */
TESSERA_API void tessera_set_log(tessera_log_callback callback, void* user);

/** Messages below `level` are dropped; at first TESSERA_LOG_INFO. For the whole process. Local. */
TESSERA_API void tessera_set_log_level(tessera_log_level level);

/* ---- process grid ---- */

/** W ranks as W / expert rows of `expert` consecutive ranks: a row's ranks hold different experts and exchange tokens, a
 * column's ranks hold the same experts. Works on duplicates of `communicator`, which remains the caller's.
 * Collective over communicator.
 *
 * @param communicator any intracommunicator of the caller
 * @param expert divides the number of ranks; 1 for codes without experts
 * @param grid receives the new grid */
TESSERA_API tessera_status tessera_grid_create(MPI_Comm communicator, int expert, tessera_grid** grid);

/** tessera_grid_create() with a Fortran handle. */
TESSERA_API tessera_status tessera_grid_create_f(MPI_Fint communicator, int expert, tessera_grid** grid);

/** This rank's place. Any pointer may be NULL. Local.
 *
 * @param grid the grid
 * @param rank,size over all ranks
 * @param expert_rank,expert_size in the row
 * @param replica_rank,replica_size in the column */
TESSERA_API tessera_status tessera_grid_place(const tessera_grid* grid, int* rank, int* size, int* expert_rank,
                                              int* expert_size, int* replica_rank, int* replica_size);

/** Ends the caller's use of the grid; its communicators are freed when nothing that was made on it is left. NULL is
 * allowed. Collective over grid. */
TESSERA_API void tessera_grid_destroy(tessera_grid* grid);

/* ---- a caller's arrays, sharded (ZeRO-3) ---- */

/** AdamW with decoupled weight decay, and clipping before it. */
typedef struct tessera_adamw {
  double learning_rate; /**< of this step */
  double beta1;         /**< decay rate of the first moment, in [0, 1) */
  double beta2;         /**< decay rate of the second moment, in [0, 1) */
  double epsilon;       /**< added to the root of the second moment */
  double weight_decay;  /**< times learning rate and parameter is taken off; of arrays that decay */
  double max_norm;      /**< gradients are scaled down to this norm over all arrays; 0: never */
} tessera_adamw;

/** Learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-8, no weight decay, no clipping. Local. */
TESSERA_API tessera_adamw tessera_adamw_defaults(void);

/** Named arrays of f32: values, gradients and both moments of AdamW are spread evenly over the ranks, so that each holds
 * 16 bytes / W per element; whole arrays exist only between gather and release. All values are 0 at first.
 * Collective over grid.
 *
 * @param grid may be destroyed before the arrays
 * @param num_arrays how many
 * @param names [num_arrays] different names without '/', those of the datasets in a saved file
 * @param sizes [num_arrays] elements, 1 or more
 * @param decays [num_arrays] whether weight decay applies; NULL: to all
 * @param zero3 receives the new object */
TESSERA_API tessera_status tessera_zero3_create(tessera_grid* grid, int64_t num_arrays, const char* const* names,
                                                const int64_t* sizes, const int* decays, tessera_zero3** zero3);

/** Which elements of an array this rank owns: `count` from `begin` on; count may be 0. Local. */
TESSERA_API tessera_status tessera_zero3_range(const tessera_zero3* zero3, int64_t array, int64_t* begin, int64_t* count);

/** Sets the elements that this rank owns. Collective over grid.
 *
 * @param zero3 the arrays; none is gathered at the moment
 * @param array which one
 * @param values [count] this rank's own */
TESSERA_API tessera_status tessera_zero3_set(tessera_zero3* zero3, int64_t array, const float* values);

/** Copies the elements that this rank owns to `values` [count]. Local. */
TESSERA_API tessera_status tessera_zero3_get(const tessera_zero3* zero3, int64_t array, float* values);

/** Starts the gather of an array that is needed soon. Collective over grid. */
TESSERA_API tessera_status tessera_zero3_prefetch(tessera_zero3* zero3, int64_t array);

/** The whole array [size], to read, until its release. Kernel memory: a host build's is host memory, a CUDA build's is
 * that of the GPU. Collective over grid. */
TESSERA_API tessera_status tessera_zero3_gather(tessera_zero3* zero3, int64_t array, const float** values);

/** Gives a gathered array back. Local. */
TESSERA_API tessera_status tessera_zero3_release(tessera_zero3* zero3, int64_t array);

/** Memory [size] to add this rank's part of the array's gradient to, zero at first; the same until
 * tessera_zero3_reduce(). Kernel memory. Local. */
TESSERA_API tessera_status tessera_zero3_gradient(tessera_zero3* zero3, int64_t array, float** gradient);

/** Starts the sum of all ranks' parts of the array's gradient; each rank keeps what it owns. A sum, not a mean: divide
 * the loss by what it is to be a mean of. May be repeated before a step, results add up. Collective over grid. */
TESSERA_API tessera_status tessera_zero3_reduce(tessera_zero3* zero3, int64_t array);

/** One step of AdamW on what each rank owns, then gradients are 0 again. A gradient that is not finite leaves everything
 * as it was (*updated = 0). Collective over grid.
 *
 * @param zero3 the arrays; none is gathered at the moment
 * @param adamw equal on all ranks
 * @param norm receives the gradient's norm over all arrays before clipping; may be NULL
 * @param updated receives whether the step was done; may be NULL */
TESSERA_API tessera_status tessera_zero3_step(tessera_zero3* zero3, const tessera_adamw* adamw, double* norm,
                                              int* updated);

/** Writes values and optimizer state to a Tessera file, and `fields` (or NULL) beside them. The file appears complete or
 * not at all; an older one of that name is replaced. Collective over grid. */
TESSERA_API tessera_status tessera_zero3_save(const tessera_zero3* zero3, const char* path, const tessera_fields* fields);

/** Reads what tessera_zero3_save() has written on any number of ranks. TESSERA_ERROR_KEYS where names or sizes differ.
 * Collective over grid. */
TESSERA_API tessera_status tessera_zero3_load(tessera_zero3* zero3, const char* path);

/** Frees everything; NULL is allowed. Collective over grid. */
TESSERA_API void tessera_zero3_destroy(tessera_zero3* zero3);

/* ---- checkpoints ---- */

/** One tensor of a checkpoint, as its file has it. Pointers live as long as the checkpoint. */
typedef struct tessera_tensor {
  const char* name;     /**< as in the file */
  const char* dtype;    /**< "f32", "bf16", "f16", "f64", "u8", "f8_e4m3", ... */
  int num_dimensions;   /**< length of `shape` */
  const int64_t* shape; /**< slowest dimension first */
} tessera_tensor;

/** Opens a Hugging Face directory (config.json and safetensors) or a Tessera file; headers alone are read.
 * Collective over grid. */
TESSERA_API tessera_status tessera_checkpoint_open(tessera_grid* grid, const char* path, tessera_checkpoint** checkpoint);

/** How many tensors it has. Local. */
TESSERA_API int64_t tessera_checkpoint_size(const tessera_checkpoint* checkpoint);

/** Describes tensor `index`, 0 and up, in the order of names. Local. */
TESSERA_API tessera_status tessera_checkpoint_tensor(const tessera_checkpoint* checkpoint, int64_t index,
                                                     tessera_tensor* tensor);

/** The index of the tensor of that name, TESSERA_ERROR_KEYS if there is none. Local. */
TESSERA_API tessera_status tessera_checkpoint_find(const tessera_checkpoint* checkpoint, const char* name, int64_t* index);

/** Reads this rank's own slice of a tensor of floating-point numbers as f32. Slices of different ranks may leave out or
 * share elements. Collective over grid.
 *
 * @param checkpoint what is read from
 * @param index which tensor, the same on all ranks
 * @param begin,count this rank's elements, counted row-major over the whole tensor; count may be 0
 * @param values [count] receives them */
TESSERA_API tessera_status tessera_checkpoint_read(tessera_checkpoint* checkpoint, int64_t index, int64_t begin,
                                                   int64_t count, float* values);

/** Writes the model of a Hugging Face directory as a Tessera file, and `fields` (or NULL) beside it. Every tensor is
 * proved against what was read. The file appears complete or not at all; an older one of that name is replaced.
 * Collective over grid. */
TESSERA_API tessera_status tessera_checkpoint_import(tessera_checkpoint* checkpoint, const char* path,
                                                     const tessera_fields* fields);

/** Closes it; NULL is allowed. Collective over grid. */
TESSERA_API void tessera_checkpoint_close(tessera_checkpoint* checkpoint);

/* ---- a caller's own arrays beside a checkpoint ---- */

/** An empty list of fields: global arrays of which each rank has a box. Local. */
TESSERA_API tessera_status tessera_fields_create(tessera_fields** fields);

/** Adds a field to the list; it is written, as "/fields/NAME", when the list is given to a save. Over all ranks the boxes
 * have each element once. Name, type and shape are the same on all ranks, the box is this rank's own. Local.
 *
 * @param fields the list
 * @param name without '/'
 * @param type of memory and file
 * @param num_dimensions length of the three arrays, 1 or more
 * @param shape of the whole array
 * @param start,count this rank's box: elements start[d] ... start[d] + count[d] - 1 of dimension d
 * @param data the box, row-major; read by the save, until then it stays the caller's */
TESSERA_API tessera_status tessera_fields_add(tessera_fields* fields, const char* name, tessera_type type,
                                              int num_dimensions, const int64_t* shape, const int64_t* start,
                                              const int64_t* count, const void* data);

/** Frees the list, not the data; NULL is allowed. Local. */
TESSERA_API void tessera_fields_destroy(tessera_fields* fields);

/** Reads this rank's box of a field; boxes may overlap. Arguments as in tessera_fields_add(); another type than the
 * file's is converted. TESSERA_ERROR_KEYS: no such field, or one of another shape. Collective over grid. */
TESSERA_API tessera_status tessera_fields_read(tessera_grid* grid, const char* path, const char* name, tessera_type type,
                                               int num_dimensions, const int64_t* shape, const int64_t* start,
                                               const int64_t* count, void* data);

/* ---- the whole trainer, step by step ---- */

/** What a step reports. */
typedef struct tessera_step {
  int64_t step;         /**< steps done, this one included */
  double loss;          /**< mean cross-entropy over the batch's targets before the step [nat] */
  double grad_norm;     /**< of all parameters, before clipping */
  double learning_rate; /**< of this step */
  double expert_load;   /**< tokens of the busiest expert / mean; of all layers the worst */
  double seconds;       /**< wall time of the step [s] */
  int updated;          /**< 0: nothing was changed, since a gradient was not finite or no label took part */
} tessera_step;

/** Opens model and data and loads this rank's shards.
 *
 * @param grid may be destroyed before the trainer
 * @param configuration TOML text whose keys are the long options of `tessera train`: model or resume, data,
 *        sequence-length, held-out, steps, total-steps, batch, micro-batch, seed, dtype, reduce-dtype, recompute, lr,
 *        schedule, warmup, min-lr-fraction, clip, aux-loss-coef, optimizer, betas, eps, weight-decay
 * @param trainer receives the new trainer
 *
 * Collective over grid. */
TESSERA_API tessera_status tessera_trainer_create(tessera_grid* grid, const char* configuration,
                                                  tessera_trainer** trainer);

/** One optimizer step on the next batch. `result` may be NULL. Collective over grid. */
TESSERA_API tessera_status tessera_trainer_step(tessera_trainer* trainer, tessera_step* result);

/** Mean loss over the held-out sequences [nat]. Collective over grid. */
TESSERA_API tessera_status tessera_trainer_evaluate(tessera_trainer* trainer, double* loss);

/** Writes a Tessera file to go on from (key `resume`), and `fields` (or NULL) beside the model. The file appears complete
 * or not at all. Collective over grid. */
TESSERA_API tessera_status tessera_trainer_save(tessera_trainer* trainer, const char* path, const tessera_fields* fields);

/** Writes a Hugging Face directory, which must not exist. Collective over grid. */
TESSERA_API tessera_status tessera_trainer_export(tessera_trainer* trainer, const char* directory);

/** Frees everything; NULL is allowed. Collective over grid. */
TESSERA_API void tessera_trainer_destroy(tessera_trainer* trainer);

#ifdef __cplusplus
}
#endif

#endif
