! SPDX-License-Identifier: Apache-2.0
! The functions of tessera.h as module tessera calls them. Programs use module tessera.
module tessera_c
  use, intrinsic :: iso_c_binding
  implicit none
  public

  type, bind(c) :: tessera_adamw
    real(c_double) :: learning_rate = 1e-3_c_double
    real(c_double) :: beta1 = 0.9_c_double, beta2 = 0.999_c_double
    real(c_double) :: epsilon = 1e-8_c_double
    real(c_double) :: weight_decay = 0, max_norm = 0
  end type
  type, bind(c) :: tessera_step
    integer(c_int64_t) :: step = 0
    real(c_double) :: loss = 0, grad_norm = 0, learning_rate = 0, expert_load = 0, seconds = 0
    integer(c_int) :: updated = 0
  end type

  type, bind(c) :: c_tensor
    type(c_ptr) :: name, dtype
    integer(c_int) :: num_dimensions
    type(c_ptr) :: shape
  end type

  interface
    function c_strlen(text) bind(c, name="strlen") result(length)
      import; type(c_ptr), value :: text; integer(c_size_t) :: length
    end function
    function c_version_string() bind(c, name="tessera_version_string") result(text)
      import; type(c_ptr) :: text
    end function
    function c_message() bind(c, name="tessera_message") result(text)
      import; type(c_ptr) :: text
    end function
    function c_start(communicator, level) bind(c, name="tessera_start_f") result(status)
      import; integer(c_int), value :: communicator, level; integer(c_int) :: status
    end function
    function c_stop() bind(c, name="tessera_stop") result(status)
      import; integer(c_int) :: status
    end function
    function c_grid_create(communicator, expert, grid) bind(c, name="tessera_grid_create_f") result(status)
      import; integer(c_int), value :: communicator, expert; type(c_ptr) :: grid; integer(c_int) :: status
    end function
    function c_grid_place(grid, rank, size, expert_rank, expert_size, replica_rank, replica_size) &
        bind(c, name="tessera_grid_place") result(status)
      import; type(c_ptr), value :: grid; integer(c_int) :: rank, size, expert_rank, expert_size
      integer(c_int) :: replica_rank, replica_size, status
    end function
    subroutine c_grid_destroy(grid) bind(c, name="tessera_grid_destroy")
      import; type(c_ptr), value :: grid
    end subroutine
    function c_zero3_create(grid, num_arrays, names, sizes, decays, zero3) bind(c, name="tessera_zero3_create") &
        result(status)
      import; type(c_ptr), value :: grid, decays; integer(c_int64_t), value :: num_arrays
      type(c_ptr), intent(in) :: names(*); integer(c_int64_t), intent(in) :: sizes(*)
      type(c_ptr) :: zero3; integer(c_int) :: status
    end function
    function c_zero3_range(zero3, array, begin, count) bind(c, name="tessera_zero3_range") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array
      integer(c_int64_t) :: begin, count; integer(c_int) :: status
    end function
    function c_zero3_set(zero3, array, values) bind(c, name="tessera_zero3_set") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array
      real(c_float), intent(in) :: values(*); integer(c_int) :: status
    end function
    function c_zero3_get(zero3, array, values) bind(c, name="tessera_zero3_get") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array
      real(c_float) :: values(*); integer(c_int) :: status
    end function
    function c_zero3_gather(zero3, array, values) bind(c, name="tessera_zero3_gather") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array
      type(c_ptr) :: values; integer(c_int) :: status
    end function
    function c_zero3_release(zero3, array) bind(c, name="tessera_zero3_release") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array; integer(c_int) :: status
    end function
    function c_zero3_gradient(zero3, array, gradient) bind(c, name="tessera_zero3_gradient") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array
      type(c_ptr) :: gradient; integer(c_int) :: status
    end function
    function c_zero3_reduce(zero3, array) bind(c, name="tessera_zero3_reduce") result(status)
      import; type(c_ptr), value :: zero3; integer(c_int64_t), value :: array; integer(c_int) :: status
    end function
    function c_zero3_step(zero3, adamw, norm, updated) bind(c, name="tessera_zero3_step") result(status)
      import; type(c_ptr), value :: zero3; type(tessera_adamw), intent(in) :: adamw; real(c_double) :: norm
      integer(c_int) :: updated, status
    end function
    function c_zero3_save(zero3, path, fields) bind(c, name="tessera_zero3_save") result(status)
      import; type(c_ptr), value :: zero3, fields; character(c_char), intent(in) :: path(*); integer(c_int) :: status
    end function
    function c_zero3_load(zero3, path) bind(c, name="tessera_zero3_load") result(status)
      import; type(c_ptr), value :: zero3; character(c_char), intent(in) :: path(*); integer(c_int) :: status
    end function
    subroutine c_zero3_destroy(zero3) bind(c, name="tessera_zero3_destroy")
      import; type(c_ptr), value :: zero3
    end subroutine
    function c_checkpoint_open(grid, path, checkpoint) bind(c, name="tessera_checkpoint_open") result(status)
      import; type(c_ptr), value :: grid; character(c_char), intent(in) :: path(*); type(c_ptr) :: checkpoint
      integer(c_int) :: status
    end function
    function c_checkpoint_size(checkpoint) bind(c, name="tessera_checkpoint_size") result(size)
      import; type(c_ptr), value :: checkpoint; integer(c_int64_t) :: size
    end function
    function c_checkpoint_tensor(checkpoint, index, tensor) bind(c, name="tessera_checkpoint_tensor") result(status)
      import; type(c_ptr), value :: checkpoint; integer(c_int64_t), value :: index; type(c_tensor) :: tensor
      integer(c_int) :: status
    end function
    function c_checkpoint_find(checkpoint, name, index) bind(c, name="tessera_checkpoint_find") result(status)
      import; type(c_ptr), value :: checkpoint; character(c_char), intent(in) :: name(*); integer(c_int64_t) :: index
      integer(c_int) :: status
    end function
    function c_checkpoint_read(checkpoint, index, begin, count, values) bind(c, name="tessera_checkpoint_read") &
        result(status)
      import; type(c_ptr), value :: checkpoint; integer(c_int64_t), value :: index, begin, count
      real(c_float) :: values(*); integer(c_int) :: status
    end function
    function c_checkpoint_import(checkpoint, path, fields) bind(c, name="tessera_checkpoint_import") result(status)
      import; type(c_ptr), value :: checkpoint, fields; character(c_char), intent(in) :: path(*); integer(c_int) :: status
    end function
    subroutine c_checkpoint_close(checkpoint) bind(c, name="tessera_checkpoint_close")
      import; type(c_ptr), value :: checkpoint
    end subroutine
    function c_fields_create(fields) bind(c, name="tessera_fields_create") result(status)
      import; type(c_ptr) :: fields; integer(c_int) :: status
    end function
    function c_fields_add(fields, name, type, num_dimensions, shape, start, count, data) &
        bind(c, name="tessera_fields_add") result(status)
      import; type(c_ptr), value :: fields, data; character(c_char), intent(in) :: name(*)
      integer(c_int), value :: type, num_dimensions; integer(c_int64_t), intent(in) :: shape(*), start(*), count(*)
      integer(c_int) :: status
    end function
    function c_fields_read(grid, path, name, type, num_dimensions, shape, start, count, data) &
        bind(c, name="tessera_fields_read") result(status)
      import; type(c_ptr), value :: grid, data; character(c_char), intent(in) :: path(*), name(*)
      integer(c_int), value :: type, num_dimensions; integer(c_int64_t), intent(in) :: shape(*), start(*), count(*)
      integer(c_int) :: status
    end function
    subroutine c_fields_destroy(fields) bind(c, name="tessera_fields_destroy")
      import; type(c_ptr), value :: fields
    end subroutine
    function c_trainer_create(grid, configuration, trainer) bind(c, name="tessera_trainer_create") result(status)
      import; type(c_ptr), value :: grid; character(c_char), intent(in) :: configuration(*); type(c_ptr) :: trainer
      integer(c_int) :: status
    end function
    function c_trainer_step(trainer, step) bind(c, name="tessera_trainer_step") result(status)
      import; type(c_ptr), value :: trainer; type(tessera_step) :: step; integer(c_int) :: status
    end function
    function c_trainer_evaluate(trainer, loss) bind(c, name="tessera_trainer_evaluate") result(status)
      import; type(c_ptr), value :: trainer; real(c_double) :: loss; integer(c_int) :: status
    end function
    function c_trainer_save(trainer, path, fields) bind(c, name="tessera_trainer_save") result(status)
      import; type(c_ptr), value :: trainer, fields; character(c_char), intent(in) :: path(*); integer(c_int) :: status
    end function
    function c_trainer_export(trainer, directory) bind(c, name="tessera_trainer_export") result(status)
      import; type(c_ptr), value :: trainer; character(c_char), intent(in) :: directory(*); integer(c_int) :: status
    end function
    subroutine c_trainer_destroy(trainer) bind(c, name="tessera_trainer_destroy")
      import; type(c_ptr), value :: trainer
    end subroutine
  end interface

end module tessera_c
