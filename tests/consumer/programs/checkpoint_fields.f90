! SPDX-License-Identifier: Apache-2.0
! A Fortran 2008 code with mpi_f08: each rank reads its slice of a tensor of a Hugging Face checkpoint; then the model
! and the code's own field, of which each rank has some columns, are written into one HDF5 file by all ranks together.
! Usage: checkpoint_fields MODEL_DIRECTORY FILE
program checkpoint_fields
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: error_unit
  use mpi_f08
  use tessera
  implicit none

  integer(c_int64_t), parameter :: nx = 40, ny = 25
  character(*), parameter :: tensor_name = "model.layers.1.mlp.router.weight"
  type(MPI_Comm) :: own
  type(tessera_grid) :: grid
  character(512) :: model, file
  integer :: level, rank, size, status

  call MPI_Init_thread(MPI_THREAD_FUNNELED, level)
  call MPI_Comm_dup(MPI_COMM_WORLD, own)
  call MPI_Comm_rank(own, rank)
  call MPI_Comm_size(own, size)
  call get_command_argument(1, model)
  call get_command_argument(2, file)
  call tessera_start(own, MPI_THREAD_FUNNELED, status)
  call must(status)
  call tessera_grid_create(own, 1, grid, status)
  call must(status)

  call write_beside_model(model, file)
  call compare_tensors(model, file)
  call read_field_back(file)
  call expect_one_error(model)

  call tessera_grid_destroy(grid)
  call tessera_stop(status)
  call must(status)
  if (rank == 0) print '(i0,a)', size, " ranks: tensors and field are what they were"
  call MPI_Finalize()

contains

  ! The code's field: any function of the place.
  elemental function temperature(i, j) result(value)
    integer(c_int64_t), intent(in) :: i, j
    real(c_double) :: value
    value = 280 + 10 * sin(0.1_c_double * real(i, c_double)) * cos(0.2_c_double * real(j, c_double))
  end function

  ! Items first ... first + count - 1 of n on this rank: the first mod(n, size) ranks have one more.
  subroutine my_part(n, first, count)
    integer(c_int64_t), intent(in) :: n
    integer(c_int64_t), intent(out) :: first, count
    count = n / size + merge(1, 0, rank < mod(n, int(size, c_int64_t)))
    first = rank * (n / size) + min(int(rank, c_int64_t), mod(n, int(size, c_int64_t))) + 1
  end subroutine

  ! The whole model as a Tessera checkpoint, and the field beside it, in one file that appears complete or not at all.
  subroutine write_beside_model(model, file)
    character(*), intent(in) :: model, file
    type(tessera_checkpoint) :: source
    type(tessera_fields) :: fields
    real(c_double), allocatable, target :: columns(:, :)
    integer(c_int64_t) :: first, count, i, j
    call my_part(ny, first, count)
    allocate(columns(nx, count))
    do j = 1, count
      columns(:, j) = [(temperature(i, first + j - 1), i = 1, nx)]
    end do
    call tessera_checkpoint_open(grid, model, source, status)
    call must(status)
    call tessera_fields_create(fields, status)
    call must(status)
    call tessera_fields_add(fields, "temperature", tessera_f64, [nx, ny], [1_c_int64_t, first], [nx, count], &
                            c_loc(columns), status)
    call must(status)
    call tessera_checkpoint_import(source, file, status, fields)
    call must(status)
    call tessera_fields_destroy(fields)
    call tessera_checkpoint_close(source)
  end subroutine

  ! This rank's slice of a tensor.
  subroutine read_slice(path, values)
    character(*), intent(in) :: path
    real(c_float), allocatable, intent(out) :: values(:)
    type(tessera_checkpoint) :: source
    character(:), allocatable :: name, dtype
    integer(c_int64_t), allocatable :: shape(:)
    integer(c_int64_t) :: first, count
    integer :: tensor
    call tessera_checkpoint_open(grid, path, source, status)
    call must(status)
    call tessera_checkpoint_find(source, tensor_name, tensor, status)
    call must(status)
    call tessera_checkpoint_tensor(source, tensor, name, dtype, shape, status)
    call must(status)
    call expect(name == tensor_name .and. dtype == "bf16" .and. all(shape == [128, 8]), "the tensor is described")
    call my_part(product(shape), first, count)
    allocate(values(count))
    call tessera_checkpoint_read(source, tensor, first, count, values, status)
    call must(status)
    call tessera_checkpoint_close(source)
  end subroutine

  subroutine compare_tensors(model, file)
    character(*), intent(in) :: model, file
    real(c_float), allocatable :: from_model(:), from_file(:)
    call read_slice(model, from_model)
    call read_slice(file, from_file)
    call expect(any(abs(from_model) > 0), "the tensor has values")
    call expect(all(transfer(from_model, [0_c_int32_t]) == transfer(from_file, [0_c_int32_t])), &
                "the file has the model's tensor bit for bit")
  end subroutine

  ! Another decomposition than that of the writer: rows instead of columns.
  subroutine read_field_back(file)
    character(*), intent(in) :: file
    real(c_double), allocatable, target :: rows(:, :)
    integer(c_int64_t) :: first, count, i, j
    call my_part(nx, first, count)
    allocate(rows(count, ny))
    call tessera_fields_read(grid, file, "temperature", tessera_f64, [nx, ny], [first, 1_c_int64_t], [count, ny], &
                             c_loc(rows), status)
    call must(status)
    do j = 1, ny
      do i = 1, count
        call expect(rows(i, j) == temperature(first + i - 1, j), "the field is what was written")
      end do
    end do
  end subroutine

  ! What one rank alone gets wrong is the error of all, with the same text.
  subroutine expect_one_error(model)
    character(*), intent(in) :: model
    type(tessera_checkpoint) :: source
    real(c_float) :: value(1)
    integer :: tensor, statuses(0:size - 1)
    integer(c_int64_t) :: first
    call tessera_checkpoint_open(grid, model, source, status)
    call tessera_checkpoint_find(source, tensor_name, tensor, status)
    first = merge(1000000, 1, rank == size - 1)
    call tessera_checkpoint_read(source, tensor, first, 1_c_int64_t, value, status)
    call MPI_Allgather(status, 1, MPI_INTEGER, statuses, 1, MPI_INTEGER, own)
    call expect(all(statuses == tessera_error_usage), "all ranks have the status of one")
    call expect(index(tessera_message(), "has no elements 999999 to 1000000") > 0, tessera_message())
    call tessera_checkpoint_close(source)
  end subroutine

  subroutine must(status)
    integer, intent(in) :: status
    if (status /= tessera_ok) call expect(.false., tessera_message())
  end subroutine

  subroutine expect(condition, what)
    logical, intent(in) :: condition
    character(*), intent(in) :: what
    if (condition) return
    write (error_unit, '(a,i0,2a)') "FAILED on rank ", rank, ": ", what
    call MPI_Abort(MPI_COMM_WORLD, 1)
  end subroutine

end program checkpoint_fields
