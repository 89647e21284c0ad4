! SPDX-License-Identifier: Apache-2.0
! A caller's arrays, sharded. Programs use module tessera.
module tessera_arrays
  use tessera_base
  implicit none
  public

contains

  subroutine tessera_zero3_create(grid, names, sizes, zero3, status, decays)
    type(tessera_grid), intent(in) :: grid
    character(*), intent(in) :: names(:)
    integer(c_int64_t), intent(in) :: sizes(:)
    type(tessera_zero3), intent(out) :: zero3
    integer, intent(out) :: status
    logical, intent(in), optional :: decays(:)
    character(c_char), target :: texts(len(names) + 1, size(names))
    type(c_ptr) :: pointers(size(names)), flags_pointer
    integer(c_int), target :: flags(size(names))
    integer :: i, j
    flags_pointer = c_null_ptr
    if (present(decays)) then
      flags = merge(1, 0, decays)
      flags_pointer = c_loc(flags)
    end if
    do i = 1, size(names)
      texts(:, i) = c_null_char
      do j = 1, len_trim(names(i))
        texts(j, i) = names(i)(j:j)
      end do
      pointers(i) = c_loc(texts(1, i))
    end do
    status = c_zero3_create(grid%handle, size(names, kind=c_int64_t), pointers, sizes, flags_pointer, zero3%handle)
  end subroutine

  ! This rank owns elements first ... first + count - 1.
  subroutine tessera_zero3_range(zero3, array, first, count, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    integer(c_int64_t), intent(out) :: first, count
    integer, intent(out) :: status
    status = c_zero3_range(zero3%handle, index_of(array), first, count)
    first = first + 1
  end subroutine

  subroutine tessera_zero3_set(zero3, array, values, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    real(c_float), intent(in) :: values(*)
    integer, intent(out) :: status
    status = c_zero3_set(zero3%handle, index_of(array), values)
  end subroutine

  subroutine tessera_zero3_get(zero3, array, values, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    real(c_float), intent(inout) :: values(*)
    integer, intent(out) :: status
    status = c_zero3_get(zero3%handle, index_of(array), values)
  end subroutine

  ! `size`: of the whole array. `values` is valid until the release.
  subroutine tessera_zero3_gather(zero3, array, size, values, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    integer(c_int64_t), intent(in) :: size
    real(c_float), pointer, intent(out) :: values(:)
    integer, intent(out) :: status
    type(c_ptr) :: pointer
    nullify(values)
    status = c_zero3_gather(zero3%handle, index_of(array), pointer)
    if (status == tessera_ok) call c_f_pointer(pointer, values, [size])
  end subroutine

  subroutine tessera_zero3_release(zero3, array, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    integer, intent(out) :: status
    status = c_zero3_release(zero3%handle, index_of(array))
  end subroutine

  ! To be added to; valid until the reduction.
  subroutine tessera_zero3_gradient(zero3, array, size, gradient, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    integer(c_int64_t), intent(in) :: size
    real(c_float), pointer, intent(out) :: gradient(:)
    integer, intent(out) :: status
    type(c_ptr) :: pointer
    nullify(gradient)
    status = c_zero3_gradient(zero3%handle, index_of(array), pointer)
    if (status == tessera_ok) call c_f_pointer(pointer, gradient, [size])
  end subroutine

  subroutine tessera_zero3_reduce(zero3, array, status)
    type(tessera_zero3), intent(in) :: zero3
    integer, intent(in) :: array
    integer, intent(out) :: status
    status = c_zero3_reduce(zero3%handle, index_of(array))
  end subroutine

  ! tessera_zero3_step() of C: in Fortran it would be hard to tell from the type tessera_step.
  subroutine tessera_zero3_take_step(zero3, adamw, norm, updated, status)
    type(tessera_zero3), intent(in) :: zero3
    type(tessera_adamw), intent(in) :: adamw
    real(c_double), intent(out) :: norm
    logical, intent(out) :: updated
    integer, intent(out) :: status
    integer(c_int) :: flag
    norm = 0
    flag = 0
    status = c_zero3_step(zero3%handle, adamw, norm, flag)
    updated = flag /= 0
  end subroutine

  subroutine tessera_zero3_save(zero3, path, status, fields)
    type(tessera_zero3), intent(in) :: zero3
    character(*), intent(in) :: path
    integer, intent(out) :: status
    type(tessera_fields), intent(in), optional :: fields
    status = c_zero3_save(zero3%handle, to_c(path), list_of(fields))
  end subroutine

  subroutine tessera_zero3_load(zero3, path, status)
    type(tessera_zero3), intent(in) :: zero3
    character(*), intent(in) :: path
    integer, intent(out) :: status
    status = c_zero3_load(zero3%handle, to_c(path))
  end subroutine

  subroutine tessera_zero3_destroy(zero3)
    type(tessera_zero3), intent(inout) :: zero3
    call c_zero3_destroy(zero3%handle)
    zero3%handle = c_null_ptr
  end subroutine

end module tessera_arrays
