//! A device that puts off what it is given, to hold the host side of plugins to what it
//! must do where work is really under way: nothing runs until somebody asks, and then a part
//! that a seed picks; what is touched after it was given back, changed under a copy, left
//! behind or done while a graph is recorded is noted; and any call can be made to fail.
//!
//! Its kernels are the CPU's, so that every one is there and gives the CPU's bits.

mod raw;
mod state;
pub mod steps;

use crate::harness::Noise;
use backends::plugin::Plugin;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use kernels_core::error::Fault;
use kernels_core::params;
use plugin::{About, Driver, Launch, Launches};
use state::{Launched, Op, State};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a device and all that it made have in common.
type Shared = Arc<Mutex<State>>;

/// The devices that can be opened, by their number.
static DEVICES: Mutex<BTreeMap<u32, Shared>> = Mutex::new(BTreeMap::new());

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where it stands: opens the device, has its calls fail, and says what was done wrong with
/// it. It panics where that was something and nobody has asked.
pub struct Watch {
    ordinal: u32,
    state: Shared,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It does nothing, and the next is a good one.
    Once,
    /// So does every call after it, and nothing that was enqueued goes on.
    ForGood,
}

impl Watch {
    /// A device that puts off by this seed.
    pub fn new(seed: u64) -> Self {
        static ORDINALS: AtomicU32 = AtomicU32::new(0);
        let ordinal = ORDINALS.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(Mutex::new(State::new(Noise::new(seed))));
        lock(&DEVICES).insert(ordinal, state.clone());
        Self { ordinal, state }
    }

    /// The same, and the device.
    pub fn opened(seed: u64) -> (Self, Plugin) {
        let watch = Self::new(seed);
        let device = watch.open().expect("nothing fails");
        (watch, device)
    }

    /// The device.
    pub fn open(&self) -> Result<Plugin, Error> {
        Plugin::of_table(plugin::table::<Queued>(), self.ordinal)
    }

    /// Has the call of that number fail, from 1.
    pub fn fail(&self, call: u64, failing: Failing) {
        lock(&self.state).failure = Some((call, failing));
    }

    /// Has every command refused so where it is lowered.
    pub fn refuse(&self, refusal: Error) {
        lock(&self.state).refusal = Some(refusal);
    }

    /// Calls until now that could have failed.
    pub fn calls(&self) -> u64 {
        lock(&self.state).calls
    }

    /// The function whose call was made to fail.
    pub fn failed(&self) -> Option<&'static str> {
        lock(&self.state).failed
    }

    /// Things enqueued that were not done yet.
    pub fn waiting(&self) -> usize {
        lock(&self.state).waiting()
    }

    /// Things of the device that are there: memory, streams, graphs, events and itself.
    pub fn left(&self) -> usize {
        lock(&self.state).left()
    }

    /// What was done wrong.
    pub fn wrongs(&self) -> Vec<String> {
        lock(&self.state).wrongs.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&DEVICES).remove(&self.ordinal);
        if !std::thread::panicking() {
            let wrongs = self.wrongs();
            assert!(wrongs.is_empty(), "done wrong with the device: {wrongs:#?}");
        }
    }
}

/// The device.
struct Queued {
    state: Shared,
    /// The command that was looked at last: what is launched is a part of it.
    lowered: RefCell<Option<Command>>,
}

/// A stream, a graph or an event, by its number.
struct Thing {
    state: Shared,
    number: u64,
}

impl Drop for Thing {
    fn drop(&mut self) {
        lock(&self.state).close(self.number);
    }
}

/// Launches of a command: one that spoils its scratch, and one that is it.
const PARTS: [(&str, [u32; 2]); 2] = [("spoil", [0, 7]), ("run", [1, 9])];

/// Scratch of a command: as if it took some, each kernel as much as it likes.
fn workspace_bytes(command: &Command) -> u64 {
    command.params().len() as u64 * 8
}

impl Driver for Queued {
    type Stream = Thing;
    type Graph = Thing;
    type Event = Thing;

    fn open(ordinal: u32) -> Result<Self, Error> {
        let absent = Fault::Unsupported { expected: "those that a test has", got: ordinal.into() };
        let absent = Error::new("device", "ordinal", absent);
        let state = lock(&DEVICES).get(&ordinal).cloned().ok_or(absent)?;
        lock(&state).open()?;
        Ok(Self { state, lowered: RefCell::new(None) })
    }

    fn about(&self) -> Result<About, Error> {
        lock(&self.state).called("about")?;
        let (name, numerics) = ("a queue before the CPU".into(), backends::cpu::NUMERICS.into());
        Ok(About { name, numerics, memory_bytes: 1 << 32, free_bytes: 1 << 32 })
    }

    fn lower(&self, command: &Command<Raw>) -> Result<Launches, Error> {
        let command = lock(&self.state).lower(command)?;
        let mut launches = Launches::default().with_workspace(workspace_bytes(&command));
        for (entry, told) in PARTS {
            launches.push(Launch { entry, told, grid: [1; 3], block: 1, shared_bytes: 0 });
        }
        *self.lowered.borrow_mut() = Some(command);
        Ok(launches)
    }

    fn owns(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        lock(&self.state).owns(address, bytes)
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        lock(&self.state).alloc(bytes)
    }

    fn free(&mut self, address: u64) {
        lock(&self.state).free(address);
    }

    fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error> {
        lock(&self.state).host_alloc(bytes)
    }

    fn host_free(&mut self, host: *mut c_void) {
        lock(&self.state).host_free(host);
    }

    fn stream(&mut self, native: *mut c_void) -> Result<Thing, Error> {
        assert!(native.is_null(), "a test has no streams of its own");
        let number = lock(&self.state).stream()?;
        Ok(Thing { state: self.state.clone(), number })
    }

    unsafe fn write(
        &mut self,
        stream: &mut Thing,
        address: u64,
        host: *const c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        let mut state = lock(&self.state);
        state.called("write")?;
        let held = state.host_bytes(host, bytes).map(<[u8]>::to_vec);
        let Some(held) = held else { return Ok(()) };
        state.enqueue(stream.number, Op::Write { address, host: host.addr(), held });
        Ok(())
    }

    unsafe fn read(
        &mut self,
        stream: &mut Thing,
        address: u64,
        host: *mut c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        let mut state = lock(&self.state);
        state.called("read")?;
        // Whoever looks before it is done does not see what was there before.
        state.put(host.addr(), &vec![0xdd; bytes as usize]);
        state.enqueue(stream.number, Op::Read { address, host: host.addr(), bytes });
        Ok(())
    }

    fn zero(&mut self, stream: &mut Thing, address: u64, bytes: u64) -> Result<(), Error> {
        let mut state = lock(&self.state);
        state.called("zero")?;
        state.enqueue(stream.number, Op::Zero { address, bytes });
        Ok(())
    }

    fn launch(
        &mut self,
        stream: &mut Thing,
        launch: &Launch,
        arguments: &[u8],
    ) -> Result<(), Error> {
        let command = self.lowered.borrow().expect("a call is lowered before it is launched");
        let mut state = lock(&self.state);
        state.called_within("launch")?;
        let (rest, told) = arguments.split_at(arguments.len() - size_of::<params::Launch>());
        let told: params::Launch = bytemuck::pod_read_unaligned(told);
        let (params, addresses) = rest.split_at(command.params().len());
        let fits = params == command.params() && addresses.len() == 8 * command.fields().len();
        let part = PARTS.iter().find(|part| part.1 == [told.tile, told.part]);
        let (true, Some(&(entry, _))) = (fits, part) else {
            state.wrong(format!("arguments that are none of {}", command.kernel()));
            return Ok(());
        };
        let spoils = (entry == PARTS[0].0).then_some(workspace_bytes(&command));
        let launched = Launched {
            command,
            spoils,
            workspace: told.workspace,
            fault: told.fault,
            number: told.command,
        };
        assert_eq!(entry, launch.entry, "each launch is told its own numbers");
        state.launch(stream.number, launched);
        Ok(())
    }

    fn graph_begin(&mut self, stream: &mut Thing) -> Result<(), Error> {
        lock(&self.state).graph_begin(stream.number)
    }

    fn graph_end(&mut self, stream: &mut Thing) -> Result<Thing, Error> {
        let number = lock(&self.state).graph_end(stream.number)?;
        Ok(Thing { state: self.state.clone(), number })
    }

    fn graph_launch(&mut self, stream: &mut Thing, graph: &mut Thing) -> Result<(), Error> {
        let mut state = lock(&self.state);
        state.called("graph_launch")?;
        state.enqueue(stream.number, Op::Graph(graph.number));
        Ok(())
    }

    fn event(&mut self) -> Result<Thing, Error> {
        let number = lock(&self.state).event()?;
        Ok(Thing { state: self.state.clone(), number })
    }

    fn event_record(&mut self, stream: &mut Thing, event: &mut Thing) -> Result<(), Error> {
        lock(&self.state).event_record(stream.number, event.number)
    }

    fn event_done(&mut self, event: &Thing) -> Result<bool, Error> {
        lock(&self.state).event_done(event.number)
    }

    fn event_wait(&mut self, event: &Thing) -> Result<(), Error> {
        lock(&self.state).event_wait(event.number)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        lock(&self.state).close_device();
    }
}
