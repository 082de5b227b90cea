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
    /// Where its buffers are, if not in this process's memory.
    memory: Option<DeviceMemory>,
    /// Bytes of workspace that it lacks.
    pub withheld: u64,
    /// Why the last call was not made.
    pub refused: Option<Refused>,
}

/// Memory of a device that this process reads and writes, by the functions that give it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMemory {
    /// So many bytes.
    pub alloc: unsafe extern "C" fn(u64) -> *mut c_void,
    /// Takes them back.
    pub free: unsafe extern "C" fn(*mut c_void),
}

impl DeviceMemory {
    /// The same bytes on the device.
    pub fn piece(self, bytes: &[u8]) -> Piece {
        // SAFETY: the function takes any number.
        let at: *mut u8 = unsafe { (self.alloc)(bytes.len() as u64) }.cast();
        assert!(!at.is_null(), "cases are small");
        // SAFETY: there is room for them.
        unsafe { at.copy_from(bytes.as_ptr(), bytes.len()) };
        Piece { memory: self, at, len: bytes.len() }
    }
}

/// A piece of a device's memory.
#[derive(Debug)]
pub struct Piece {
    memory: DeviceMemory,
    at: *mut u8,
    len: usize,
}

impl Piece {
    /// Where it lies.
    pub fn at(&self) -> *mut c_void {
        self.at.cast()
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it has so many bytes, and nobody writes them but a run that has ended.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }

    /// Writes others of the same length.
    pub fn put(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.len, "as many as there were");
        // SAFETY: as above.
        unsafe { self.at.copy_from(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: it is of this memory, and given back once.
        unsafe { (self.memory.free)(self.at.cast()) }
    }
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
        Self::open("cpu", threads, "", None).expect("there is always a CPU")
    }

    /// A device by its name, with its plugin in that folder, and its memory.
    pub fn open(
        name: &str,
        threads: u32,
        plugins: &str,
        memory: Option<DeviceMemory>,
    ) -> Result<Self, Refused> {
        let options = pw_device_options {
            struct_size: size_of::<pw_device_options>() as u32,
            threads,
            plugins: if plugins.is_empty() { null() } else { plugins.as_ptr().cast() },
            plugins_bytes: plugins.len() as u64,
        };
        let mut abi = Self { device: null_mut(), memory, withheld: 0, refused: None };
        let mut device = null_mut();
        let (letters, bytes) = (name.as_ptr().cast(), name.len() as u64);
        // SAFETY: a name and options of their lengths, and a place for the handle.
        let opened = abi.told(|_, error| unsafe {
            header::pw_device_open(letters, bytes, &options, &mut device, error)
        });
        abi.device = device;
        match opened {
            Ok(()) => Ok(abi),
            Err(_) => Err(abi.refused.take().expect("it was told why")),
        }
    }

    /// Whether its runs are enqueued, in memory of its own.
    pub fn has_streams(&self) -> bool {
        self.memory.is_some()
    }

    /// Its handle.
    pub fn device(&self) -> *mut pw_device {
        self.device
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
    pub fn told(
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
        let plan_bytes = needs.plan_bytes;
        let workspace_bytes = needs.workspace_bytes.saturating_sub(self.withheld);
        let mut workspace = Bytes::filled(workspace_bytes as usize, 0xff);
        let Some(memory) = self.memory else {
            let moved = bytes.clone();
            let plan = moved.as_slice().as_ptr().cast();
            let workspace = workspace.as_mut_slice().as_mut_ptr().cast();
            let given = pw_run { plan, plan_bytes, workspace, workspace_bytes };
            return self.told(|device, error| run(device, given, error));
        };
        let (plan, scratch) = (memory.piece(bytes.as_slice()), memory.piece(workspace.as_slice()));
        let given =
            pw_run { plan: plan.at(), plan_bytes, workspace: scratch.at(), workspace_bytes };
        self.told(|device, error| run(device, given, error))?;
        bytes.as_mut_slice().copy_from_slice(plan.bytes());
        let copied = bytes.as_slice().as_ptr().cast();
        // SAFETY: a copy of the plan, of its length.
        self.told(|device, error| unsafe {
            header::pw_plan_fault(device, copied, plan_bytes, error)
        })
    }
}

impl Machine for Abi {
    fn run<C: Kernel>(&mut self, mut command: C) -> Result<(), Error> {
        let Some(memory) = self.memory else {
            return kernels::call(self, &command.lay(&mut Addresses));
        };
        let mut pieces = Pieces { memory, pieces: Vec::new() };
        let laid = command.lay(&mut pieces);
        kernels::call(self, &laid)?;
        command.lay(&mut Back(pieces.pieces.into_iter()));
        Ok(())
    }
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody else has it.
        unsafe { header::pw_device_destroy(self.device) }
    }
}

/// Buffers as pieces of a device's memory, in the order in which they come.
struct Pieces {
    memory: DeviceMemory,
    pieces: Vec<Piece>,
}

impl Lay for Pieces {
    fn read(&mut self, bytes: &[u8]) -> Slice {
        let piece = self.memory.piece(bytes);
        let slice = Addresses::slice(piece.at.expose_provenance(), piece.len);
        self.pieces.push(piece);
        slice
    }
    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        self.read(bytes)
    }
}

/// What pieces hold, in the same order.
struct Back(std::vec::IntoIter<Piece>);

impl Lay for Back {
    fn read(&mut self, _bytes: &[u8]) -> Slice {
        self.0.next().expect("as many as were laid out");
        Addresses::slice(0, 0)
    }
    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        let piece = self.0.next().expect("as many as were laid out");
        bytes.copy_from_slice(piece.bytes());
        Addresses::slice(0, 0)
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
