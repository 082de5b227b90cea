//! A device for who has memory, streams and an order of its own: one call at a time, by
//! address.

use super::load::{self, Refused, library_name};
use super::table::{self, Call, Device, Stream};
use kernels_core::Error;
use kernels_core::device::{Command, KERNELS};
use kernels_core::params;
use plugin::{About, PWP_STREAM_DEFAULT};
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Streams of the host that are remembered at most.
const STREAMS_MAX: usize = 256;

/// A device behind a plugin, whose memory and streams are its user's. Any thread may use it.
pub struct Embedded {
    about: About,
    used: Mutex<Used>,
}

/// Fields are in the order in which they go.
struct Used {
    /// Streams of the host by their handle.
    streams: HashMap<usize, Stream>,
    device: Device,
}

/// What a call takes beside its buffers, by address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scratch {
    /// Where its scratch begins; 0 where it takes none.
    pub workspace: u64,
    /// How long it is.
    pub workspace_bytes: u64,
    /// Where its `pwk_fault` is.
    pub fault: u64,
}

impl Embedded {
    /// The device of that number behind the library in `folder`, of this kind: `"cuda"`.
    pub fn load(folder: &Path, kind: &str, ordinal: u32) -> Result<Self, Refused> {
        let library = load::open(&folder.join(library_name(kind)))?;
        let device = Device::open(library, ordinal).map_err(Refused::Device)?;
        let about = device.about().map_err(Refused::Device)?;
        let used = Mutex::new(Used { streams: HashMap::new(), device });
        Ok(Self { about, used })
    }

    /// What the device is.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The scratch that a command takes, each of whose slices lies at its offset, in the
    /// device's memory as a whole; or the field that the device cannot serve or reach.
    pub fn needs(&self, command: &Command, scratch: Scratch) -> Result<u64, Error> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.device.needs(&call(command, scratch)?)
    }

    /// Enqueues a command on a stream of the host's, or on the device's default one where it
    /// is null. Waits for nothing, and allocates nothing but for a stream that it sees first.
    pub fn launch(
        &self,
        native: *mut c_void,
        command: &Command,
        scratch: Scratch,
    ) -> Result<(), Error> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let Used { streams, device } = &mut *used;
        let call = call(command, scratch)?;
        let native = match native.is_null() {
            true => std::ptr::without_provenance_mut(PWP_STREAM_DEFAULT as usize),
            false => native,
        };
        if streams.len() >= STREAMS_MAX && !streams.contains_key(&native.addr()) {
            // They are names of what the host has: nothing goes that is under way.
            streams.clear();
        }
        let stream = match streams.entry(native.addr()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(device.stream_of(native)?),
        };
        device.launch(stream, &call)
    }
}

/// The call of a command; what a fault of it is told by is the place of its kernel in
/// [`KERNELS`].
fn call(command: &Command, scratch: Scratch) -> Result<Call<'_>, Error> {
    let mut call = Call::new(command, |slice| Ok(slice.offset))?;
    let place = KERNELS.iter().position(|(kernel, _)| *kernel == command.kernel());
    call.number = place.unwrap_or(KERNELS.len()) as u32;
    call.workspace = (scratch.workspace, scratch.workspace_bytes);
    call.fault = scratch.fault;
    Ok(call)
}

/// What a call's `pwk_fault` tells, if it tells something: the refusal of that kernel.
pub fn fault(fault: &params::Fault) -> Option<Error> {
    let (kernel, fields) = KERNELS.get(fault.command as usize).copied().unwrap_or(("plugin", &[]));
    (fault.kind != 0).then(|| table::refusal(fault, kernel, fields))
}
