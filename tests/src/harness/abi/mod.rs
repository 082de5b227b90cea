//! The C ABI as a machine: a case's command goes through `pagewise.h`, as an embedder would
//! send it.

mod kernels;

use super::Bytes;
use super::machine::{Kernel, Machine};
use kernels_core::Error;
use kernels_core::command::Lay;
use kernels_core::device::{Buffer, Slice};
use kernels_core::error::Fault;
use pagewise::header::{self, pw_device, pw_device_options, pw_error, pw_needs, pw_run, pw_status};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

/// A device that C opened.
pub struct Abi {
    device: *mut pw_device,
    /// Why the last call was not made.
    pub refused: Option<Refused>,
}

/// What C was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the function returned.
    pub status: pw_status,
    /// What is at fault.
    pub field: String,
    /// In words.
    pub message: String,
}

impl Abi {
    /// The CPU, with so many threads.
    pub fn cpu(threads: u32) -> Self {
        let options = pw_device_options {
            struct_size: size_of::<pw_device_options>() as u32,
            threads,
            plugins: null(),
            plugins_bytes: 0,
        };
        let mut device = null_mut();
        // SAFETY: a name of three bytes, options, and a place for the handle.
        let status = unsafe {
            header::pw_device_open(c"cpu".as_ptr(), 3, &options, &mut device, null_mut())
        };
        assert_eq!(status, header::PW_OK as pw_status);
        Self { device, refused: None }
    }

    /// Its arithmetic.
    pub fn numerics(&self) -> String {
        // SAFETY: the device is open, and its name ends with 0.
        unsafe { CStr::from_ptr(header::pw_device_numerics(self.device)) }
            .to_str()
            .expect("ASCII")
            .to_owned()
    }

    /// Calls a function of C with room for its error.
    fn told(
        &mut self,
        call: impl FnOnce(*const pw_device, *mut pw_error) -> pw_status,
    ) -> Result<(), Error> {
        let mut error = pw_error {
            struct_size: size_of::<pw_error>() as u32,
            status: 0,
            field: [0; 32],
            expected: 0,
            got: 0,
            message: [0; 200],
        };
        let status = call(self.device, &mut error);
        if status == header::PW_OK as pw_status {
            return Ok(());
        }
        assert_eq!(error.status, status, "the error says what the function does");
        let text = |letters: &[c_char]| {
            let letters = bytemuck::cast_slice(letters).split(|letter: &u8| *letter == 0).next();
            String::from_utf8(letters.unwrap_or_default().to_vec()).expect("UTF-8")
        };
        let (field, message) = (text(&error.field), text(&error.message));
        self.refused = Some(Refused { status, field, message });
        Err(Error::new("abi", "refused", Fault::Stale))
    }

    /// Asks, plans and runs, with what it is told to take; the plan is moved in between.
    fn through(
        &mut self,
        query: impl FnOnce(*const pw_device, *mut pw_needs, *mut pw_error) -> pw_status,
        plan: impl FnOnce(*const pw_device, *mut c_void, u64, *mut pw_error) -> pw_status,
        run: impl FnOnce(*const pw_device, pw_run, *mut pw_error) -> pw_status,
    ) -> Result<(), Error> {
        let mut needs = pw_needs {
            struct_size: size_of::<pw_needs>() as u32,
            alignment: 0,
            plan_bytes: 0,
            workspace_bytes: 0,
        };
        self.told(|device, error| query(device, &mut needs, error))?;
        let mut bytes = Bytes::filled(needs.plan_bytes as usize, 0xff);
        let (to, room) = (bytes.as_mut_slice().as_mut_ptr(), needs.plan_bytes);
        self.told(|device, error| plan(device, to.cast(), room, error))?;
        let moved = bytes.clone();
        let mut workspace = Bytes::filled(needs.workspace_bytes as usize, 0xff);
        let given = pw_run {
            plan: moved.as_slice().as_ptr().cast(),
            plan_bytes: needs.plan_bytes,
            workspace: workspace.as_mut_slice().as_mut_ptr().cast(),
            workspace_bytes: needs.workspace_bytes,
        };
        self.told(|device, error| run(device, given, error))
    }
}

impl Machine for Abi {
    fn run<C: Kernel>(&mut self, mut command: C) -> Result<(), Error> {
        kernels::call(self, &command.lay(&mut Addresses))
    }
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody else has it.
        unsafe { header::pw_device_destroy(self.device) }
    }
}

/// Buffers by their addresses.
struct Addresses;

impl Addresses {
    fn slice(address: usize, bytes: usize) -> Slice {
        let buffer = Buffer { owner: 0, id: 0, generation: 0 };
        Slice { buffer, offset: address as u64, bytes: bytes as u64 }
    }
}

impl Lay for Addresses {
    fn read(&mut self, bytes: &[u8]) -> Slice {
        Self::slice(bytes.as_ptr().expose_provenance(), bytes.len())
    }
    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        Self::slice(bytes.as_mut_ptr().expose_provenance(), bytes.len())
    }
}
