"""libpagewise by ctypes, and tensors of anybody who speaks DLPack.

Structs and constants are read from include/pagewise.h, so that nothing is written twice; each
struct has the size that the header asserts, or importing this fails. The library is the one that
PAGEWISE_LIBRARY names.
"""

import ctypes
import os
import pathlib
import re

HEADER = pathlib.Path(__file__).resolve().parents[2] / "include/pagewise.h"
SCALARS = {
    "char": ctypes.c_char,
    "uint8_t": ctypes.c_uint8,
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}


# ---- the header ------------------------------------------------------------------------------


def fields(body, types):
    """Of a struct's body: any pointer is an address."""
    for declaration in filter(None, map(str.strip, body.split(";"))):
        kind, names = declaration.removeprefix("const ").split(None, 1)
        for name in names.split(","):
            name, _, length = name.strip().rstrip("]").partition("[")
            if "*" in name:
                yield name.lstrip("* ").removeprefix("const "), ctypes.c_void_p
            else:
                yield name, types[kind] * int(length) if length else types[kind]


def read(header):
    """Structs by name, and the numbers of `#define`."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
    numbers = {
        name: int(value.rstrip("u"), 0)
        for name, value in re.findall(r"#define (PW_\w+) \(?(-?\w+)\)?\s*$", text, flags=re.M)
        if value[0] in "-0123456789"
    }
    types = dict(SCALARS)
    for known, name in re.findall(r"typedef (\w+) (pw_\w+);", text):
        types[name] = types[known]
    structs = {}
    for name, body in re.findall(r"typedef struct (pw_\w+) \{(.*?)\} \1;", text, flags=re.S):
        structs[name] = type(name, (ctypes.Structure,), {"_fields_": list(fields(body, types))})
        types[name] = structs[name]
    sizes = re.findall(r"sizeof\((pw_\w+)\) == (\d+)\)", text)
    assert len(sizes) > 40, "the header asserts sizes"
    for name, size in sizes:
        assert ctypes.sizeof(structs[name]) == int(size), f"{name} is not as the header has it"
    return structs, numbers


STRUCTS, PW = read(HEADER)


def new(name, **values):
    """A struct of the header; fields that are not named are 0."""
    made = STRUCTS[name](**values)
    if hasattr(made, "struct_size"):
        made.struct_size = ctypes.sizeof(made)
    return made


# ---- calls -----------------------------------------------------------------------------------


class Refused(ValueError):
    """What the library, or this file, does not take; `field` is the header's name for it."""

    def __init__(self, field, message):
        super().__init__(f"{field}: {message}")
        self.field = field


def call(name, *given):
    """A function of the library. Numbers are ctypes' own, structs come by reference."""
    error = new("pw_error")
    if getattr(LIBRARY, name)(*given, ctypes.byref(error)) != PW["PW_OK"]:
        raise Refused(error.field.decode(), error.message.decode())


def library():
    path = os.environ.get("PAGEWISE_LIBRARY")
    if not path:
        raise SystemExit("PAGEWISE_LIBRARY names no library: DIR/lib/libpagewise.so, say, after cargo xtask install --prefix DIR")
    loaded = ctypes.CDLL(path)
    if loaded.pw_version() != PW["PW_VERSION_MAJOR"] << 16 | PW["PW_VERSION_MINOR"]:
        raise SystemExit(f"{path} is of another version than {HEADER}")
    return loaded


def device(name):
    handle = ctypes.c_void_p()
    name = name.encode()
    call("pw_device_open", name, ctypes.c_uint64(len(name)), None, ctypes.byref(handle))
    return handle


def numerics():
    """The id of the CPU's arithmetic."""
    LIBRARY.pw_device_numerics.restype = ctypes.c_char_p
    return LIBRARY.pw_device_numerics(CPU).decode()


LIBRARY = library()
CPU = device("cpu")  # never changes, and any thread may use it: kept as long as the process


# ---- DLPack ----------------------------------------------------------------------------------


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", DLTensor),
    ]


DL_CPU, DL_READ_ONLY = 1, 1
DL_INT, DL_UINT, DL_FLOAT, DL_BFLOAT, DL_E4M3FN = 0, 1, 2, 4, 10
DTYPES = {
    (DL_FLOAT, 32): PW["PW_F32"],
    (DL_FLOAT, 16): PW["PW_F16"],
    (DL_BFLOAT, 16): PW["PW_BF16"],
    (DL_E4M3FN, 8): PW["PW_E4M3"],
    (DL_INT, 8): PW["PW_I8"],
}

pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Buffer:
    """A tensor's memory where it lies: no copy. `field` is what the header calls it."""

    def __init__(self, tensor, field, written=False):
        try:
            lies_on = tensor.__dlpack_device__()[0]
        except (ValueError, BufferError) as error:
            raise Refused(field, str(error)) from None
        if lies_on != DL_CPU:
            raise Refused(field, f"lies on a device of DLPack's type {lies_on}, not on the CPU")
        # Whoever holds the capsule holds the tensor; its own destructor lets go of it.
        self.capsule = tensor.__dlpack__(max_version=(1, 0))
        managed = pointer_of(self.capsule, b"dltensor_versioned")
        managed = DLManagedTensorVersioned.from_address(managed)
        if managed.major != 1:
            raise Refused(field, f"comes by version {managed.major} of DLPack, not 1")
        if written and managed.flags & DL_READ_ONLY:
            raise Refused(field, "may only be read")
        lies = managed.tensor
        self.field, self.code, self.bits = field, lies.code, lies.bits
        self.dtype = DTYPES.get((lies.code, lies.bits), 0)  # 0: the library will say which field
        self.shape = tuple(lies.shape[: lies.ndim])
        self.strides = tuple(stride * lies.bits // 8 for stride in lies.strides[: lies.ndim])
        self.address = (lies.data or 0) + lies.byte_offset or None

    def dims(self, *dims):
        """That it has these dims; None: any."""
        if len(dims) != len(self.shape) or any(d not in (None, s) for d, s in zip(dims, self.shape)):
            raise Refused(self.field, f"has shape {list(self.shape)}, not {list(dims)}")
        return self

    def rows(self):
        """That each of its rows lies side by side."""
        self.dense_from(1)
        return self

    def dense(self):
        """That all of it lies side by side."""
        self.dense_from(0)
        return self

    def dense_from(self, dim):
        stride = self.bits // 8
        for size, had in reversed(list(zip(self.shape, self.strides))[dim:]):
            if had != stride and size > 1:
                raise Refused(self.field, f"has strides {list(self.strides)}: it is not dense")
            stride *= size

    def whole_numbers(self):
        """That it is dense, of 32 bits: read as u32, where a negative number is far too large."""
        if self.code not in (DL_INT, DL_UINT) or self.bits != 32:
            raise Refused(self.field, "is not of whole numbers of 32 bits")
        return self.dense()
