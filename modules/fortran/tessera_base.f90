! SPDX-License-Identifier: Apache-2.0
! Types, texts, start and end, process grid. Programs use module tessera.
module tessera_base
  use, intrinsic :: iso_c_binding
  use mpi_f08, only: MPI_Comm
  use tessera_c
  implicit none
  public

  integer, parameter :: tessera_ok = 0, tessera_error_usage = 1, tessera_error_config = 2, &
    tessera_error_file = 3, tessera_error_format = 4, tessera_error_keys = 5, tessera_error_memory = 6, &
    tessera_error_communication = 7, tessera_error_numeric = 8, tessera_error_interrupted = 9, &
    tessera_error_internal = 10
  integer, parameter :: tessera_f32 = 0, tessera_f64 = 1, tessera_i32 = 2, tessera_i64 = 3, tessera_u8 = 4

  type :: tessera_grid
    type(c_ptr) :: handle = c_null_ptr
  end type
  type :: tessera_zero3
    type(c_ptr) :: handle = c_null_ptr
  end type
  type :: tessera_checkpoint
    type(c_ptr) :: handle = c_null_ptr
  end type
  type :: tessera_fields
    type(c_ptr) :: handle = c_null_ptr
  end type
  type :: tessera_trainer
    type(c_ptr) :: handle = c_null_ptr
  end type

contains

  ! Text of C as a Fortran string.
  function from_c(pointer) result(text)
    type(c_ptr), intent(in) :: pointer
    character(:), allocatable :: text
    character(c_char), pointer :: letters(:)
    integer :: i
    call c_f_pointer(pointer, letters, [c_strlen(pointer)])
    allocate(character(size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function

  function to_c(text) result(terminated)
    character(*), intent(in) :: text
    character(:), allocatable :: terminated
    terminated = trim(text) // c_null_char
  end function

  function list_of(fields) result(handle)
    type(tessera_fields), intent(in), optional :: fields
    type(c_ptr) :: handle
    handle = c_null_ptr
    if (present(fields)) handle = fields%handle
  end function

  function tessera_version_string() result(text)
    character(:), allocatable :: text
    text = from_c(c_version_string())
  end function

  function tessera_message() result(text)
    character(:), allocatable :: text
    text = from_c(c_message())
  end function

  subroutine tessera_start(communicator, thread_level, status)
    type(MPI_Comm), intent(in) :: communicator
    integer, intent(in) :: thread_level
    integer, intent(out) :: status
    status = c_start(communicator%MPI_VAL, thread_level)
  end subroutine

  subroutine tessera_stop(status)
    integer, intent(out) :: status
    status = c_stop()
  end subroutine

  subroutine tessera_grid_create(communicator, expert, grid, status)
    type(MPI_Comm), intent(in) :: communicator
    integer, intent(in) :: expert
    type(tessera_grid), intent(out) :: grid
    integer, intent(out) :: status
    status = c_grid_create(communicator%MPI_VAL, expert, grid%handle)
  end subroutine

  subroutine tessera_grid_place(grid, rank, size, expert_rank, expert_size, replica_rank, replica_size, status)
    type(tessera_grid), intent(in) :: grid
    integer, intent(out) :: rank, size, expert_rank, expert_size, replica_rank, replica_size, status
    status = c_grid_place(grid%handle, rank, size, expert_rank, expert_size, replica_rank, replica_size)
  end subroutine

  subroutine tessera_grid_destroy(grid)
    type(tessera_grid), intent(inout) :: grid
    call c_grid_destroy(grid%handle)
    grid%handle = c_null_ptr
  end subroutine

  function index_of(array) result(index)
    integer, intent(in) :: array
    integer(c_int64_t) :: index
    index = int(array, c_int64_t) - 1
  end function

end module tessera_base
