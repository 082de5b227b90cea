//! What is enqueued, and what there is to enqueue it with.

use super::Failing;
use crate::harness::Noise;
use backends::cpu::Cpu;
use kernels_core::Error;
use kernels_core::command::{Address, Raw};
use kernels_core::device::{Backend, Buffer, Command, Launch, Program, Slice};
use kernels_core::error::Fault;
use kernels_core::params;
use kernels_core::simd::Level;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::ptr::with_exposed_provenance_mut;

/// Where memory of the device begins, and how far pieces are apart: no address is ever
/// another piece's, or the host's.
const ADDRESS: u64 = 1 << 60;
const GAP: u64 = 256;

/// Something to do in its turn.
pub enum Op {
    Write {
        address: u64,
        host: usize,
        /// What the host's memory held: it is to hold it still.
        held: Vec<u8>,
    },
    Read {
        address: u64,
        host: usize,
        bytes: u64,
    },
    Zero {
        address: u64,
        bytes: u64,
    },
    Launch(Box<Launched>),
    Graph(u64),
}

/// A launch of a command.
#[derive(Clone, Copy)]
pub struct Launched {
    pub command: Command,
    /// Bytes of scratch that it spoils, in place of running.
    pub spoils: Option<u64>,
    pub workspace: u64,
    pub fault: u64,
    pub number: u32,
}

enum Thing {
    Stream {
        queue: VecDeque<Op>,
        /// Things that were enqueued, and that are done.
        enqueued: u64,
        done: u64,
        recorded: Option<Vec<Launched>>,
    },
    Graph(Vec<Launched>),
    /// A stream, and how many of its things are before it.
    Event(Option<(u64, u64)>),
}

/// A piece of memory of the host.
struct Host {
    words: usize,
    is_free: bool,
}

pub struct State {
    noise: Noise,
    pub calls: u64,
    pub failure: Option<(u64, Failing)>,
    /// What every command is refused by.
    pub refusal: Option<Error>,
    /// The function that failed.
    pub failed: Option<&'static str>,
    pub wrongs: Vec<String>,
    opened: usize,
    cpu: Cpu,
    /// A program of no commands: what reads go with.
    nothing: Program,
    pieces: BTreeMap<u64, (Buffer, u64)>,
    next: u64,
    hosts: BTreeMap<usize, Host>,
    things: BTreeMap<u64, Thing>,
    made: u64,
}

impl State {
    pub fn new(noise: Noise) -> Self {
        let mut cpu = Cpu::new(Level::best(), 1);
        let nothing = cpu.record(&[]).expect("there is nothing to refuse");
        Self {
            noise,
            calls: 0,
            failure: None,
            refusal: None,
            failed: None,
            wrongs: Vec::new(),
            opened: 0,
            cpu,
            nothing,
            pieces: BTreeMap::new(),
            next: ADDRESS,
            hosts: BTreeMap::new(),
            things: BTreeMap::new(),
            made: 0,
        }
    }

    pub fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    /// Counts a call that may fail, and fails it where it is to.
    pub fn called_within(&mut self, function: &'static str) -> Result<(), Error> {
        self.calls += 1;
        let Some((call, failing)) = self.failure else { return Ok(()) };
        let fails = match failing {
            Failing::Once => self.calls == call,
            Failing::ForGood => self.calls >= call,
        };
        if !fails {
            return Ok(());
        }
        self.failed.get_or_insert(function);
        if failing == Failing::ForGood {
            self.lose();
        }
        let fault = Fault::Device { says: "it was made to fail", code: self.calls as i64 };
        Err(Error::new("queued", function, fault))
    }

    /// The same for what must not be done while a graph is recorded.
    pub fn called(&mut self, function: &'static str) -> Result<(), Error> {
        self.not_recording(function);
        self.called_within(function)
    }

    fn not_recording(&mut self, function: &'static str) {
        let recording = |thing: &Thing| matches!(thing, Thing::Stream { recorded: Some(_), .. });
        if self.things.values().any(recording) {
            self.wrong(format!("{function} while a graph is recorded"));
        }
    }

    /// Nothing that was enqueued goes on.
    fn lose(&mut self) {
        for thing in self.things.values_mut() {
            if let Thing::Stream { queue, enqueued, done, .. } = thing {
                queue.clear();
                *done = *enqueued;
            }
        }
    }

    pub fn open(&mut self) -> Result<(), Error> {
        self.called("open")?;
        self.opened += 1;
        Ok(())
    }

    pub fn close_device(&mut self) {
        self.opened -= 1;
        if self.left() > 0 {
            let (pieces, things) = (self.pieces.len(), self.things.len());
            let hosts = self.hosts.values().filter(|host| !host.is_free).count();
            self.wrong(format!(
                "closed with {pieces} pieces of memory, {hosts} of the host's and {things} \
                 streams, graphs and events left"
            ));
        }
    }

    pub fn left(&self) -> usize {
        let hosts = self.hosts.values().filter(|host| !host.is_free).count();
        self.opened + self.pieces.len() + hosts + self.things.len()
    }

    pub fn waiting(&self) -> usize {
        let queued = self.things.values().map(|thing| match thing {
            Thing::Stream { queue, .. } => queue.len(),
            _ => 0,
        });
        queued.sum()
    }
}

/// Memory.
impl State {
    pub fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        self.called("alloc")?;
        let address = self.next;
        let buffer = self.cpu.alloc(bytes)?;
        self.next += bytes.next_multiple_of(GAP) + GAP;
        self.pieces.insert(address, (buffer, bytes));
        Ok(address)
    }

    /// Whatever is under way with it finds it gone.
    pub fn free(&mut self, address: u64) {
        self.not_recording("free");
        match self.pieces.remove(&address) {
            Some((buffer, _)) => self.cpu.release(buffer).expect("it was there"),
            None => self.wrong(format!("free of {address:#x}, where nothing begins")),
        }
    }

    pub fn owns(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        let absent = Fault::Unsupported { expected: "memory of its own", got: address as i64 };
        self.slice(Address { at: address, bytes }).map(drop).ok_or(absent)
    }

    /// The slice of a piece.
    fn slice(&self, Address { at, bytes }: Address) -> Option<Slice> {
        let (start, &(buffer, length)) = self.pieces.range(..=at).next_back()?;
        let offset = at - start;
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= length);
        fits.then_some(Slice { buffer, offset, bytes })
    }

    pub fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error> {
        self.called("host_alloc")?;
        let words = (bytes as usize).div_ceil(8);
        let memory = Box::into_raw(vec![u64::MAX; words].into_boxed_slice()).cast::<c_void>();
        self.hosts.insert(memory.expose_provenance(), Host { words, is_free: false });
        Ok(memory)
    }

    /// It is spoilt, and stays until the device is gone: whatever is under way finds it free.
    pub fn host_free(&mut self, host: *mut c_void) {
        self.not_recording("host_free");
        let known = self.hosts.get_mut(&host.addr()).filter(|known| !known.is_free);
        let Some(known) = known else {
            return self.wrong("host_free of what is none".into());
        };
        let bytes = known.words * 8;
        self.put(host.addr(), &vec![0xee; bytes]);
        self.hosts.get_mut(&host.addr()).expect("it is known").is_free = true;
    }

    /// Whether a range is of one piece that was not given back.
    fn has_host(&mut self, at: usize, bytes: usize) -> bool {
        let piece = self.hosts.range(..=at).next_back();
        let is_there = piece
            .is_some_and(|(start, host)| !host.is_free && at - start + bytes <= host.words * 8);
        if !is_there {
            self.wrong(format!(
                "a copy of {bytes} bytes with memory of the host that is not there"
            ));
        }
        is_there
    }

    pub fn host_bytes(&mut self, host: *const c_void, bytes: u64) -> Option<&[u8]> {
        let is_there = self.has_host(host.addr(), bytes as usize);
        // SAFETY: it is memory of `host_alloc`, which stays as long as this does.
        is_there.then(|| unsafe { std::slice::from_raw_parts(host.cast(), bytes as usize) })
    }

    pub fn put(&mut self, host: usize, bytes: &[u8]) {
        if self.has_host(host, bytes.len()) {
            let to = with_exposed_provenance_mut::<u8>(host);
            // SAFETY: as above; nobody looks at it before the copy is done.
            unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for (&at, host) in &self.hosts {
            let words = with_exposed_provenance_mut::<u64>(at);
            let memory = std::ptr::slice_from_raw_parts_mut(words, host.words);
            // SAFETY: it is a box of `host_alloc`, and given back here alone.
            drop(unsafe { Box::from_raw(memory) });
        }
    }
}

/// Streams, graphs and events.
impl State {
    fn make(&mut self, thing: Thing) -> u64 {
        self.made += 1;
        self.things.insert(self.made, thing);
        self.made
    }

    pub fn close(&mut self, number: u64) {
        self.not_recording("close");
        let thing = self.things.remove(&number).expect("it is closed once");
        if let Thing::Stream { queue, .. } = thing
            && !queue.is_empty()
        {
            self.wrong(format!("a stream closed with {} things under way", queue.len()));
        }
    }

    pub fn stream(&mut self) -> Result<u64, Error> {
        self.called("stream")?;
        let (queue, recorded) = (VecDeque::new(), None);
        Ok(self.make(Thing::Stream { queue, enqueued: 0, done: 0, recorded }))
    }

    pub fn event(&mut self) -> Result<u64, Error> {
        self.called("event")?;
        Ok(self.make(Thing::Event(None)))
    }

    pub fn enqueue(&mut self, stream: u64, op: Op) {
        if let Some(Thing::Stream { queue, enqueued, .. }) = self.things.get_mut(&stream) {
            queue.push_back(op);
            *enqueued += 1;
        }
        // A device goes on whenever it likes.
        if self.noise.below(4) == 0 {
            self.go_on(stream);
        }
    }

    /// A launch, now or as a part of a graph.
    pub fn launch(&mut self, stream: u64, launched: Launched) {
        match self.things.get_mut(&stream) {
            Some(Thing::Stream { recorded: Some(recorded), .. }) => recorded.push(launched),
            _ => self.enqueue(stream, Op::Launch(Box::new(launched))),
        }
    }

    pub fn graph_begin(&mut self, stream: u64) -> Result<(), Error> {
        self.called("graph_begin")?;
        if let Some(Thing::Stream { recorded, .. }) = self.things.get_mut(&stream) {
            *recorded = Some(Vec::new());
        }
        Ok(())
    }

    pub fn graph_end(&mut self, stream: u64) -> Result<u64, Error> {
        let recorded = match self.things.get_mut(&stream) {
            Some(Thing::Stream { recorded, .. }) => recorded.take(),
            _ => None,
        };
        self.called_within("graph_end")?;
        if recorded.is_none() {
            self.wrong("the end of a graph that was not begun".into());
        }
        Ok(self.make(Thing::Graph(recorded.unwrap_or_default())))
    }

    pub fn event_record(&mut self, stream: u64, event: u64) -> Result<(), Error> {
        self.called("event_record")?;
        let Some(Thing::Stream { enqueued, .. }) = self.things.get(&stream) else { return Ok(()) };
        let at = (stream, *enqueued);
        self.things.insert(event, Thing::Event(Some(at)));
        Ok(())
    }

    /// How much of a stream an event still waits for.
    fn before(&self, event: u64) -> (u64, u64) {
        let Some(&Thing::Event(Some((stream, at)))) = self.things.get(&event) else {
            return (0, 0);
        };
        match self.things.get(&stream) {
            Some(Thing::Stream { done, .. }) => (stream, at.saturating_sub(*done)),
            _ => (0, 0),
        }
    }

    pub fn event_done(&mut self, event: u64) -> Result<bool, Error> {
        self.called("event_done")?;
        let (stream, before) = self.before(event);
        // Sometimes none of it, sometimes all.
        for _ in 0..u64::from(self.noise.below(8)).min(before) {
            self.go_on(stream);
        }
        Ok(self.before(event).1 == 0)
    }

    pub fn event_wait(&mut self, event: u64) -> Result<(), Error> {
        self.called("event_wait")?;
        let (stream, before) = self.before(event);
        (0..before).for_each(|_| self.go_on(stream));
        Ok(())
    }
}

/// What is done in its turn.
impl State {
    /// A command on the CPU's memory, if the CPU has it.
    pub fn lower(&mut self, command: &Command<Raw>) -> Result<Command, Error> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let kernel = command.kernel();
        let absent = Fault::Unsupported { expected: "memory that is there", got: 0 };
        let mut all = true;
        let command = command.sliced(|address| {
            self.slice(address).unwrap_or_else(|| {
                all = false;
                Slice { buffer: Buffer { owner: 0, id: 0, generation: 0 }, offset: 0, bytes: 0 }
            })
        });
        if !all {
            self.wrong(format!("{kernel} with memory that is not there"));
            return Err(Error::new("queued", "address", absent));
        }
        self.cpu.query(&command)?;
        Ok(command)
    }

    /// Does the next thing.
    fn go_on(&mut self, stream: u64) {
        let Some(Thing::Stream { queue, done, .. }) = self.things.get_mut(&stream) else { return };
        let Some(op) = queue.pop_front() else { return };
        *done += 1;
        match op {
            Op::Write { address, host, held } => {
                let now = self.host_bytes(with_exposed_provenance_mut(host), held.len() as u64);
                if now.is_some_and(|now| now != held) {
                    self.wrong("memory of the host changed while it was copied from".into());
                }
                self.write(address, &held);
            }
            Op::Read { address, host, bytes } => {
                let read = self.read(address, bytes);
                self.put(host, &read);
            }
            Op::Zero { address, bytes } => self.write(address, &vec![0; bytes as usize]),
            Op::Launch(launched) => self.run(&launched),
            Op::Graph(graph) => match self.things.get(&graph) {
                Some(Thing::Graph(launches)) => {
                    launches.clone().iter().for_each(|launched| self.run(launched));
                }
                _ => self.wrong("a graph that was closed while it was under way".into()),
            },
        }
    }

    fn write(&mut self, address: u64, bytes: &[u8]) {
        let slice = self.slice(Address { at: address, bytes: bytes.len() as u64 });
        match slice.map(|slice| self.cpu.write(slice, bytes)) {
            Some(Ok(())) => {}
            _ => self.wrong("a write to memory that is not there".into()),
        }
    }

    fn read(&mut self, address: u64, bytes: u64) -> Vec<u8> {
        let mut read = vec![0; bytes as usize];
        let Some(slice) = self.slice(Address { at: address, bytes }) else {
            self.wrong("a read of memory that is not there".into());
            return read;
        };
        let launch = Launch { writes: &[], program: self.nothing, reads: &[slice] };
        let ticket = self.cpu.submit(launch).expect("the slice is there");
        self.cpu.collect(ticket, &mut read).expect("it is as long");
        read
    }

    /// Runs a command, unless one before it was refused.
    fn run(&mut self, launched: &Launched) {
        let Launched { command, spoils, workspace, fault, number } = *launched;
        let kept = self.read(fault, size_of::<params::Fault>() as u64);
        let kept: params::Fault = bytemuck::pod_read_unaligned(&kept);
        if kept.kind != 0 {
            return;
        }
        if let Some(bytes) = spoils {
            return self.write(workspace, &vec![0xbb; bytes as usize]);
        }
        let Ok(program) = self.cpu.record(&[command]) else {
            let kernel = command.kernel();
            return self.wrong(format!("{kernel} ran with memory that was given back"));
        };
        let launch = Launch { writes: &[], program, reads: &[] };
        let refused = self.cpu.submit(launch).and_then(|ticket| self.cpu.collect(ticket, &mut []));
        self.cpu.forget(program).expect("it was recorded");
        if let Err(refused) = refused {
            let told = params::Fault { command: number, ..told(&command, refused) };
            self.write(fault, bytemuck::bytes_of(&told));
        }
    }
}

/// A refusal as a kernel leaves it.
fn told(command: &Command, refused: Error) -> params::Fault {
    let name = refused.field.split('.').next();
    let field = command.fields().iter().position(|field| Some(*field) == name);
    let field = field.expect("a step's refusal names a buffer") as u32;
    let kept = params::Fault { field, claimed: 1, ..Default::default() };
    match refused.fault {
        Fault::Element { at, least, most, got } => {
            params::Fault { at, least, most, got, kind: params::FAULT_ELEMENT, ..kept }
        }
        Fault::Repeated { at, earlier } => {
            let (least, kind) = (earlier as i64, params::FAULT_REPEATED);
            params::Fault { at, least, kind, ..kept }
        }
        Fault::NotFiniteAt { at } => params::Fault { at, kind: params::FAULT_NOT_FINITE, ..kept },
        Fault::BelowAt { at } => params::Fault { at, kind: params::FAULT_BELOW, ..kept },
        Fault::AboveAt { at } => params::Fault { at, kind: params::FAULT_ABOVE, ..kept },
        fault => panic!("no step is refused so: {fault:?}"),
    }
}
