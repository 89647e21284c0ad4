! SPDX-License-Identifier: Apache-2.0
! Tessera for Fortran 2008: thin wrappers of tessera.h, where each procedure is described. What differs from C:
! communicators are those of mpi_f08; every procedure that can fail ends in `status` (tessera_ok or one of
! tessera_error_*), and tessera_message() has the text; arrays, tensors and positions are counted from 1; shapes are in
! Fortran's order, so that dimensions appear in a file as HDF5's own Fortran interface writes them: reversed.
module tessera
  use tessera_base
  use tessera_arrays
  use tessera_files
  implicit none
  private

  public :: tessera_ok, tessera_error_usage, tessera_error_config, tessera_error_file, tessera_error_format, &
    tessera_error_keys, tessera_error_memory, tessera_error_communication, tessera_error_numeric, &
    tessera_error_interrupted, tessera_error_internal
  public :: tessera_f32, tessera_f64, tessera_i32, tessera_i64, tessera_u8
  public :: tessera_grid, tessera_zero3, tessera_checkpoint, tessera_fields, tessera_trainer
  public :: tessera_adamw, tessera_step, tessera_version_string, tessera_message, tessera_start, tessera_stop
  public :: tessera_grid_create, tessera_grid_place, tessera_grid_destroy
  public :: tessera_zero3_create, tessera_zero3_range, tessera_zero3_set, tessera_zero3_get, tessera_zero3_gather, &
    tessera_zero3_release, tessera_zero3_gradient, tessera_zero3_reduce, tessera_zero3_take_step, tessera_zero3_save, &
    tessera_zero3_load, tessera_zero3_destroy
  public :: tessera_checkpoint_open, tessera_checkpoint_size, tessera_checkpoint_tensor, tessera_checkpoint_find, &
    tessera_checkpoint_read, tessera_checkpoint_import, tessera_checkpoint_close
  public :: tessera_fields_create, tessera_fields_add, tessera_fields_read, tessera_fields_destroy
  public :: tessera_trainer_create, tessera_trainer_step, tessera_trainer_evaluate, tessera_trainer_save, &
    tessera_trainer_export, tessera_trainer_destroy

contains

  subroutine tessera_trainer_create(grid, configuration, trainer, status)
    type(tessera_grid), intent(in) :: grid
    character(*), intent(in) :: configuration
    type(tessera_trainer), intent(out) :: trainer
    integer, intent(out) :: status
    status = c_trainer_create(grid%handle, to_c(configuration), trainer%handle)
  end subroutine

  subroutine tessera_trainer_step(trainer, step, status)
    type(tessera_trainer), intent(in) :: trainer
    type(tessera_step), intent(out) :: step
    integer, intent(out) :: status
    status = c_trainer_step(trainer%handle, step)
  end subroutine

  subroutine tessera_trainer_evaluate(trainer, loss, status)
    type(tessera_trainer), intent(in) :: trainer
    real(c_double), intent(out) :: loss
    integer, intent(out) :: status
    loss = 0
    status = c_trainer_evaluate(trainer%handle, loss)
  end subroutine

  subroutine tessera_trainer_save(trainer, path, status, fields)
    type(tessera_trainer), intent(in) :: trainer
    character(*), intent(in) :: path
    integer, intent(out) :: status
    type(tessera_fields), intent(in), optional :: fields
    status = c_trainer_save(trainer%handle, to_c(path), list_of(fields))
  end subroutine

  subroutine tessera_trainer_export(trainer, directory, status)
    type(tessera_trainer), intent(in) :: trainer
    character(*), intent(in) :: directory
    integer, intent(out) :: status
    status = c_trainer_export(trainer%handle, to_c(directory))
  end subroutine

  subroutine tessera_trainer_destroy(trainer)
    type(tessera_trainer), intent(inout) :: trainer
    call c_trainer_destroy(trainer%handle)
    trainer%handle = c_null_ptr
  end subroutine

end module tessera
