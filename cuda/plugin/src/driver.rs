//! The driver's functions as they are called here, and its errors in words.
//!
//! cust_raw knows the results of CUDA 11.4 as a Rust enum, and a newer driver has more of
//! them: a value that an enum lacks must never come to be. So each function is declared once
//! more, with a number as its result, and the compiler holds its arguments against cust's.
//! For the same reason none of cust's own types are used, which call those functions.

use cust::sys::*;
use kernels_core::Error;
use kernels_core::error::Fault;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::ptr::null;

/// No such memory is left.
const OUT_OF_MEMORY: i32 = 2;
/// An event's work is not done yet.
const NOT_READY: i32 = 600;

macro_rules! functions {
    ($($name:ident($($type:ty),*);)*) => {
        pub mod raw {
            use super::*;
            unsafe extern "C" {
                $(pub fn $name($(_: $type),*) -> i32;)*
            }
        }
        $(const _: unsafe extern "C" fn($($type),*) -> CUresult = cust::sys::$name;)*
    };
}

functions! {
    cuInit(c_uint);
    cuDriverGetVersion(*mut c_int);
    cuDeviceGetCount(*mut c_int);
    cuDeviceGet(*mut CUdevice, c_int);
    cuDeviceGetName(*mut c_char, c_int, CUdevice);
    cuDeviceGetAttribute(*mut c_int, CUdevice_attribute, CUdevice);
    cuDevicePrimaryCtxRetain(*mut CUcontext, CUdevice);
    cuDevicePrimaryCtxRelease_v2(CUdevice);
    cuCtxGetCurrent(*mut CUcontext);
    cuCtxGetDevice(*mut CUdevice);
    cuCtxPushCurrent_v2(CUcontext);
    cuCtxPopCurrent_v2(*mut CUcontext);
    cuModuleLoadData(*mut CUmodule, *const c_void);
    cuModuleUnload(CUmodule);
    cuModuleGetFunction(*mut CUfunction, CUmodule, *const c_char);
    cuFuncGetAttribute(*mut c_int, CUfunction_attribute, CUfunction);
    cuFuncSetAttribute(CUfunction, CUfunction_attribute, c_int);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemAlloc_v2(*mut CUdeviceptr, usize);
    cuMemFree_v2(CUdeviceptr);
    cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
    cuMemFreeHost(*mut c_void);
    cuMemsetD8Async(CUdeviceptr, c_uchar, usize, CUstream);
    cuMemcpyHtoDAsync_v2(CUdeviceptr, *const c_void, usize, CUstream);
    cuMemcpyDtoDAsync_v2(CUdeviceptr, CUdeviceptr, usize, CUstream);
    cuMemcpyDtoHAsync_v2(*mut c_void, CUdeviceptr, usize, CUstream);
    cuPointerGetAttribute(*mut c_void, CUpointer_attribute, CUdeviceptr);
    cuStreamCreate(*mut CUstream, c_uint);
    cuStreamDestroy_v2(CUstream);
    cuStreamGetCtx(CUstream, *mut CUcontext);
    cuStreamSynchronize(CUstream);
    cuStreamBeginCapture_v2(CUstream, CUstreamCaptureMode);
    cuStreamEndCapture(CUstream, *mut CUgraph);
    cuGraphInstantiateWithFlags(*mut CUgraphExec, CUgraph, c_ulonglong);
    cuGraphDestroy(CUgraph);
    cuGraphLaunch(CUgraphExec, CUstream);
    cuGraphExecDestroy(CUgraphExec);
    cuEventCreate(*mut CUevent, c_uint);
    cuEventRecord(CUevent, CUstream);
    cuEventQuery(CUevent);
    cuEventSynchronize(CUevent);
    cuEventDestroy_v2(CUevent);
    cuLaunchKernel(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
        *mut *mut c_void, *mut *mut c_void
    );
}

/// What a function of the driver answered, where that was no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The function.
    pub function: &'static str,
    /// The driver's number.
    pub code: i32,
}

/// Calls a function of the driver by its name.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: places are the caller's own and outlive the call; handles are of the driver,
        // and not destroyed before; of addresses the host answers, as plugin.h says.
        let code = unsafe { $crate::driver::raw::$name($($argument),*) };
        $crate::driver::outcome(stringify!($name), code)
    }};
}
pub(crate) use call;

/// What came of a call.
pub fn outcome(function: &'static str, code: i32) -> Result<(), Failure> {
    if code == 0 { Ok(()) } else { Err(Failure { function, code }) }
}

impl Failure {
    /// Whether it is only that the work is not done yet.
    pub fn is_not_ready(self) -> bool {
        self.code == NOT_READY
    }

    /// The error of a request for so much memory.
    pub fn of_bytes(self, bytes: u64) -> Error {
        match self.code {
            OUT_OF_MEMORY => Error::new("device", "bytes", Fault::OutOfMemory { bytes }),
            _ => self.into(),
        }
    }

    /// The error of a field.
    pub fn of(self, field: &'static str) -> Error {
        if self.code == OUT_OF_MEMORY {
            // A graph takes some where it is made and first launched; the device is well.
            return Error::new("device", field, Fault::OutOfMemory { bytes: 0 });
        }
        let words = words(name(self.code).as_deref(), remedy(self.code));
        let says = match field == self.function {
            true => words,
            false => format!("{}: {words}", self.function),
        };
        let says = plugin::lasting(says);
        Error::new("device", field, Fault::Device { says, code: self.code.into() })
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.of(failure.function)
    }
}

/// The words of a failure: its name, and what helps against it.
fn words(name: Option<&str>, remedy: Option<&str>) -> String {
    match (name, remedy) {
        (Some(name), Some(remedy)) => format!("{name}: {remedy}"),
        (Some(words), None) | (None, Some(words)) => words.to_owned(),
        (None, None) => "an error that the driver has no name for".to_owned(),
    }
}

/// What helps, for what a machine is told before it first works.
fn remedy(code: i32) -> Option<&'static str> {
    Some(match code {
        34 => "the libcuda.so.1 that was found is a stand-in: take its folder off the path",
        46 => "the card is in use by others, or in exclusive mode",
        100 => "no CUDA device is here: does nvidia-smi list one, and CUDA_VISIBLE_DEVICES too?",
        200 | 209 | 218 | 222 => "the kernels are not for this card and driver: update the driver",
        700 | 719 => "a kernel read or wrote where it must not; the process has to begin anew",
        802 => "the machine's fabric is not ready: is nvidia-fabricmanager running?",
        803 => "the driver's library and its kernel module differ: restart after the update",
        804 => "the driver is too old for the compatibility library that is beside it",
        _ => return None,
    })
}

unsafe extern "C" {
    /// Takes any number: cust's takes its enum.
    fn cuGetErrorName(code: i32, name: *mut *const c_char) -> i32;
}

/// What the driver calls the number.
fn name(code: i32) -> Option<String> {
    let mut name = null();
    // SAFETY: the place is this function's own.
    let _ = unsafe { cuGetErrorName(code, &mut name) };
    // SAFETY: where the driver knows the number, it is a constant of its own, ended by 0.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Failure, OUT_OF_MEMORY, name, remedy, words};
    use kernels_core::Error;
    use kernels_core::error::Fault;

    fn failure(code: i32) -> Failure {
        Failure { function: "cuInit", code }
    }

    #[test]
    fn a_number_that_nobody_knows_has_words_too() {
        // The stand-in for the driver has no names at all.
        assert_eq!(name(123_456), None);
        let error: Error = failure(123_456).into();
        let said = "device: cuInit failed with 123456: an error that the driver has no name for";
        assert_eq!(error.to_string(), said);
        let said = failure(123_456).of("norm").to_string();
        assert!(said.starts_with("device: norm failed with 123456: cuInit: an error"), "{said}");
    }

    #[test]
    fn what_helps_is_said_beside_the_name() {
        let said = words(Some("CUDA_ERROR_NO_DEVICE"), remedy(100));
        assert!(said.starts_with("CUDA_ERROR_NO_DEVICE: no CUDA device is here"), "{said}");
        assert_eq!(words(Some("CUDA_ERROR_UNKNOWN"), remedy(999)), "CUDA_ERROR_UNKNOWN");
        // The table has room for so many bytes.
        let name = "cuFuncSetAttribute: CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE";
        for code in [34, 46, 100, 200, 700, 802, 803, 804] {
            let said = words(Some(name), remedy(code));
            assert!(said.len() < 208, "{said}");
        }
    }

    #[test]
    fn memory_that_is_not_there_is_told_by_its_bytes() {
        let error = failure(OUT_OF_MEMORY).of_bytes(64);
        assert_eq!(error.fault, Fault::OutOfMemory { bytes: 64 });
        assert!(matches!(failure(1).of_bytes(64).fault, Fault::Device { code: 1, .. }));
    }
}
