! SPDX-License-Identifier: Apache-2.0
! Checkpoints and fields. Programs use module tessera.
module tessera_files
  use tessera_base
  implicit none
  public

contains

  subroutine tessera_checkpoint_open(grid, path, checkpoint, status)
    type(tessera_grid), intent(in) :: grid
    character(*), intent(in) :: path
    type(tessera_checkpoint), intent(out) :: checkpoint
    integer, intent(out) :: status
    status = c_checkpoint_open(grid%handle, to_c(path), checkpoint%handle)
  end subroutine

  function tessera_checkpoint_size(checkpoint) result(size)
    type(tessera_checkpoint), intent(in) :: checkpoint
    integer :: size
    size = int(c_checkpoint_size(checkpoint%handle))
  end function

  ! `shape` in Fortran's order: the first dimension is the one whose elements lie side by side.
  subroutine tessera_checkpoint_tensor(checkpoint, tensor, name, dtype, shape, status)
    type(tessera_checkpoint), intent(in) :: checkpoint
    integer, intent(in) :: tensor
    character(:), allocatable, intent(out) :: name, dtype
    integer(c_int64_t), allocatable, intent(out) :: shape(:)
    integer, intent(out) :: status
    type(c_tensor) :: description
    integer(c_int64_t), pointer :: extents(:)
    status = c_checkpoint_tensor(checkpoint%handle, index_of(tensor), description)
    if (status /= tessera_ok) return
    name = from_c(description%name)
    dtype = from_c(description%dtype)
    call c_f_pointer(description%shape, extents, [description%num_dimensions])
    shape = extents(size(extents):1:-1)
  end subroutine

  subroutine tessera_checkpoint_find(checkpoint, name, tensor, status)
    type(tessera_checkpoint), intent(in) :: checkpoint
    character(*), intent(in) :: name
    integer, intent(out) :: tensor, status
    integer(c_int64_t) :: index
    index = -1
    status = c_checkpoint_find(checkpoint%handle, to_c(name), index)
    tensor = int(index) + 1
  end subroutine

  ! Elements first ... first + count - 1 of the tensor, counted in the order of its file.
  subroutine tessera_checkpoint_read(checkpoint, tensor, first, count, values, status)
    type(tessera_checkpoint), intent(in) :: checkpoint
    integer, intent(in) :: tensor
    integer(c_int64_t), intent(in) :: first, count
    real(c_float), intent(inout) :: values(*)
    integer, intent(out) :: status
    status = c_checkpoint_read(checkpoint%handle, index_of(tensor), first - 1, count, values)
  end subroutine

  subroutine tessera_checkpoint_import(checkpoint, path, status, fields)
    type(tessera_checkpoint), intent(in) :: checkpoint
    character(*), intent(in) :: path
    integer, intent(out) :: status
    type(tessera_fields), intent(in), optional :: fields
    status = c_checkpoint_import(checkpoint%handle, to_c(path), list_of(fields))
  end subroutine

  subroutine tessera_checkpoint_close(checkpoint)
    type(tessera_checkpoint), intent(inout) :: checkpoint
    call c_checkpoint_close(checkpoint%handle)
    checkpoint%handle = c_null_ptr
  end subroutine

  subroutine tessera_fields_create(fields, status)
    type(tessera_fields), intent(out) :: fields
    integer, intent(out) :: status
    status = c_fields_create(fields%handle)
  end subroutine

  ! `data`: c_loc() of a contiguous array, which stays as it is until the save. This rank's box has elements
  ! first(d) ... first(d) + count(d) - 1 of each dimension d.
  subroutine tessera_fields_add(fields, name, type, shape, first, count, data, status)
    type(tessera_fields), intent(in) :: fields
    character(*), intent(in) :: name
    integer, intent(in) :: type
    integer(c_int64_t), intent(in) :: shape(:), first(:), count(:)
    type(c_ptr), intent(in) :: data
    integer, intent(out) :: status
    integer :: n
    n = size(shape)
    status = c_fields_add(fields%handle, to_c(name), type, n, shape(n:1:-1), first(n:1:-1) - 1, count(n:1:-1), data)
  end subroutine

  subroutine tessera_fields_read(grid, path, name, type, shape, first, count, data, status)
    type(tessera_grid), intent(in) :: grid
    character(*), intent(in) :: path, name
    integer, intent(in) :: type
    integer(c_int64_t), intent(in) :: shape(:), first(:), count(:)
    type(c_ptr), intent(in) :: data
    integer, intent(out) :: status
    integer :: n
    n = size(shape)
    status = c_fields_read(grid%handle, to_c(path), to_c(name), type, n, shape(n:1:-1), first(n:1:-1) - 1, &
                           count(n:1:-1), data)
  end subroutine

  subroutine tessera_fields_destroy(fields)
    type(tessera_fields), intent(inout) :: fields
    call c_fields_destroy(fields%handle)
    fields%handle = c_null_ptr
  end subroutine

end module tessera_files
