"""Many arrays under names, passed to compiled code as one pointer.

numba passes a tuple of arrays as all their pointers and lengths, in and out of every function: of a
gateway's forty arrays that is three hundred values a call, and minutes of compiling. A `Handle` is
a table of addresses; what compiled code reads of it is an array without a reference count, which
lives as long as the handle does on Python's side. Its fields are declared as class attributes:

    class Queues(Handle):
        lines: Rows = field(LINE)           # an array of rows
        lanes: Rows = field(LANE, 3)        # of three dimensions
        prefixes: Prefixes = part(Prefixes)  # another handle
"""

from typing import Any, ClassVar

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)
from numba.np.arrayobj import make_array, populate_array
from numba.np.numpy_support import from_dtype

_WORDS = 4  # of the table a field has: address, lengths of up to three dimensions


class HandleType(types.Type):
    """Of one class of handles; equal by its name, which is in the name of all that take it."""

    def __init__(self, name: str, fields: "dict[str, types.Type]") -> None:
        self.fields = fields
        self.places = {field: place for place, field in enumerate(fields)}
        super().__init__(name=f"Handle:{name}")


class Handle:
    """Arrays (C order, of the declared types) and other handles. Assign none after it was made."""

    FIELDS: ClassVar[dict[str, Any]] = {}
    numba_type: ClassVar[HandleType]

    def __init_subclass__(cls) -> None:
        cls.FIELDS = {name: value for name, value in vars(cls).items() if isinstance(value, _Field)}
        fields = {name: field.numba_type for name, field in cls.FIELDS.items()}
        cls.numba_type = HandleType(cls.__name__, fields)

    def __init__(self, **parts: Any) -> None:  # noqa: ANN401 (arrays and handles)
        if parts.keys() != self.FIELDS.keys():
            raise ValueError(f"a {type(self).__name__} is made of {', '.join(self.FIELDS)}")
        self._table = np.zeros((len(self.FIELDS), _WORDS), np.int64)
        self.address = self._table.ctypes.data
        self.replace(**parts)

    def replace(self, **parts: Any) -> None:  # noqa: ANN401 (arrays and handles)
        """Other arrays from now on; between calls of compiled code."""
        for name, value in parts.items():
            entry = self._table[list(self.FIELDS).index(name)]
            if isinstance(value, Handle):
                entry[0] = value.address
            else:
                value = self.FIELDS[name].checked(value, f"{type(self).__name__}.{name}")
                entry[0] = value.ctypes.data
                entry[1 : 1 + value.ndim] = value.shape
            setattr(self, name, value)


class _Field:
    def __init__(self, dtype: np.dtype[Any] | None, ndim: int, numba_type: types.Type) -> None:
        self.dtype, self.ndim, self.numba_type = dtype, ndim, numba_type

    def checked(self, value: Any, name: str) -> Any:  # noqa: ANN401 (an array)
        """The array; ValueError where it is not as declared."""
        if value.dtype != self.dtype or value.ndim != self.ndim or not value.flags.c_contiguous:
            raise ValueError(
                f"{name} was given {value.dtype} in {value.ndim} dimensions; it takes "
                f"{self.dtype} in {self.ndim}, in C order"
            )
        return value


def field(dtype: np.dtype[Any] | type | str, ndim: int = 1) -> Any:  # noqa: ANN401 (an array, to checkers)
    """A declared array."""
    dtype = np.dtype(dtype)
    return _Field(dtype, ndim, types.Array(from_dtype(dtype), ndim, "C"))


def part(handle: type[Handle]) -> Any:  # noqa: ANN401 (a handle, to checkers)
    """A declared handle."""
    return _Field(None, 0, handle.numba_type)


# What numba has to know.

register_model(HandleType)(models.OpaqueModel)


@typeof_impl.register(Handle)
def _typeof(handle: Handle, _context: object) -> HandleType:
    return handle.numba_type


@unbox(HandleType)
def _unbox(_type: HandleType, value: Any, c: Any) -> NativeValue:  # noqa: ANN401 (numba's own)
    number = c.pyapi.object_getattr_string(value, "address")
    pointer = c.pyapi.long_as_voidptr(number)
    c.pyapi.decref(number)
    return NativeValue(pointer, is_error=cgutils.is_not_null(c.builder, c.pyapi.err_occurred()))


@infer_getattr
class _Attribute(AttributeTemplate):
    key = HandleType

    def generic_resolve(self, typ: HandleType, attr: str) -> types.Type | None:
        return typ.fields.get(attr)


@lower_getattr_generic(HandleType)
def _read(context: Any, builder: Any, typ: HandleType, value: Any, attr: str) -> Any:  # noqa: ANN401 (numba's own)
    words = builder.bitcast(value, ir.IntType(64).as_pointer())
    place = typ.places[attr] * _WORDS
    field_type: Any = typ.fields[attr]

    def word(offset: int) -> Any:  # noqa: ANN401 (an LLVM value)
        loaded = builder.load(cgutils.gep(builder, words, place + offset))
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded

    if isinstance(field_type, HandleType):
        return builder.inttoptr(word(0), context.get_value_type(field_type))
    array = make_array(field_type)(context, builder)
    data = builder.inttoptr(word(0), array.data.type)
    shape = [word(1 + axis) for axis in range(field_type.ndim)]
    itemsize = context.get_constant(
        types.intp, context.get_abi_sizeof(context.get_data_type(field_type.dtype))
    )
    strides = [itemsize]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(length, strides[0]))
    populate_array(array, data, shape, strides, itemsize, meminfo=None)
    return array._getvalue()
