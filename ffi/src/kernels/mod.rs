//! Kernels, as C calls them: query, plan, run. What is the same of all is here; each file
//! beside this one says how a descriptor becomes parameters, and where its buffers are.

mod activation;
mod append_kv;
mod attention;
mod attention_fold;
mod embed;
mod gather;
mod kv_copy;
mod layout;
mod logit_mask;
mod lora;
mod matmul;
mod norm;
mod plan;
mod pool;
mod rope;
mod sample;
mod source;
mod spec_verify;
mod token_logprob;
mod varlen_mask;

pub use layout::weight;

use crate::backend::{DEVICES, Device, Place};
use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read, write};
use crate::header::{pw_device, pw_needs, pw_run};
use crate::memory::Buffers;
use backends::cpu::Threads;
use backends::plugin::{Embedded, Scratch};
use bytemuck::Pod;
use kernels_core::Error;
use kernels_core::command::{Host, Memory, Recorded};
use kernels_core::device::{Command, Needs};
use kernels_core::error::Fault;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Workers;
use plan::{ALIGNMENT, DEVICE_ALIGNMENT, FAULT_AT, Kind, LISTS, Places, Step};
use source::{Given, Placed, Source};
use std::ffi::c_void;

// SAFETY: bindgen's struct of numbers, the first of which is the size.
unsafe impl Sized32 for pw_needs {
    const LEAST: u32 = 24;
}

/// A kernel's descriptor, looked over for what only C can have wrong: the kernel itself refuses
/// the rest.
pub trait Kernel: Sized {
    /// As C has it.
    type Desc: Sized32 + Pod;
    /// What C says of a step.
    type Lens;
    /// Buffers of a step.
    type Args: Sized32;
    /// The call, with its buffers in some memory.
    type Command<M: Memory>;
    /// How its plans begin.
    const KIND: &'static [u8; 8];

    /// Of a descriptor.
    fn new(desc: &Self::Desc) -> Result<Self, Refusal>;
    /// The largest step that it is for; lists are empty.
    fn most(&self) -> Step<'static>;
    /// Words of each list of a step at most.
    fn lists(&self) -> [u64; LISTS] {
        [0; LISTS]
    }
    /// What a list of a step says that the step lacks.
    fn absent(_list: usize, words: &mut [u32]) {
        words.fill(0);
    }
    /// What C says of a step, looked over.
    ///
    /// # Safety
    ///
    /// Pointers lead to what the header says.
    unsafe fn step<'a>(&self, lens: Self::Lens) -> Result<Step<'a>, Refusal>;
    /// The call of a step.
    ///
    /// # Safety
    ///
    /// Pointers lead to what the header says, as far as the source follows them.
    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal>;
    /// What every run takes.
    fn given(args: &Self::Args) -> &pw_run;
    /// What has no meaning yet.
    fn reserved(args: &Self::Args) -> u32;
    /// What a call takes beside its buffers.
    fn needs(command: &Self::Command<Recorded>, workers: u32) -> Result<Needs, Error>;
    /// The call as devices take it.
    fn on_device(command: Self::Command<Recorded>) -> Command;
    /// Writes what a call without rows leaves behind.
    fn nothing(_command: Self::Command<Host<'_>>) {}
    /// Makes a call.
    fn run(
        level: Level,
        workers: &dyn Workers,
        command: Self::Command<Host<'_>>,
        workspace: &mut [u8],
    ) -> Result<(), Error>;
}

/// Parts of a [`Kernel`] that differ by its name alone.
macro_rules! kernel {
    ($stem:ident $kernel:ident, $desc:ident, $args:ident, $kind:literal $(, $workspace:ident)?) => {
        type Desc = crate::header::$desc;
        type Args = crate::header::$args;
        type Command<M: kernels_core::command::Memory> = kernels_core::$stem::$kernel<M>;
        const KIND: &'static [u8; 8] = $kind;

        fn given(args: &Self::Args) -> &crate::header::pw_run {
            &args.run
        }
        fn reserved(args: &Self::Args) -> u32 {
            args.reserved
        }
        fn needs(
            command: &Self::Command<kernels_core::command::Recorded>,
            workers: u32,
        ) -> Result<kernels_core::device::Needs, kernels_core::Error> {
            command.needs(workers)
        }
        fn on_device(
            command: Self::Command<kernels_core::command::Recorded>,
        ) -> kernels_core::device::Command {
            command.into()
        }
        fn run(
            level: kernels_core::simd::Level,
            workers: &dyn kernels_core::workers::Workers,
            command: Self::Command<kernels_core::command::Host<'_>>,
            _workspace: &mut [u8],
        ) -> Result<(), kernels_core::Error> {
            kernels_core::$stem::run(level, workers, command $(, kernel!(@$workspace _workspace))?)
        }
    };
    (@workspace $given:ident) => { $given };
    // Of a kernel of which a step says no more than how many rows it has.
    (rows) => {
        type Lens = u32;

        fn most(&self) -> crate::kernels::plan::Step<'static> {
            crate::kernels::plan::Step::of([self.params.rows_max, 0, 0])
        }
        unsafe fn step<'a>(
            &self,
            rows: u32,
        ) -> Result<crate::kernels::plan::Step<'a>, crate::error::Refusal> {
            CHECKS.range("rows", rows, 0..=self.params.rows_max.into())?;
            Ok(crate::kernels::plan::Step::of([rows, 0, 0]))
        }
    };
    // The sizes that structs had first, and what is exported.
    (export $kernel:ident, $query:ident, $plan:ident($($lens:ident: $type:ty),+), $run:ident, $desc_bytes:literal, $args_bytes:literal) => {
        // SAFETY: bindgen's structs of numbers and pointers, the first of which is the size.
        unsafe impl crate::guard::Sized32 for <$kernel as crate::kernels::Kernel>::Desc {
            const LEAST: u32 = $desc_bytes;
        }
        // SAFETY: as above.
        unsafe impl crate::guard::Sized32 for <$kernel as crate::kernels::Kernel>::Args {
            const LEAST: u32 = $args_bytes;
        }
        export! {
            fn $query(
                device: *const crate::header::pw_device,
                desc: *const <$kernel as crate::kernels::Kernel>::Desc,
                needs: *mut crate::header::pw_needs,
            ) {
                crate::kernels::query::<$kernel>(device, desc, needs)
            }
            fn $plan(
                device: *const crate::header::pw_device,
                desc: *const <$kernel as crate::kernels::Kernel>::Desc,
                $($lens: $type,)+
                plan: *mut std::ffi::c_void,
                plan_bytes: u64,
            ) {
                crate::kernels::plan::<$kernel>(device, desc, ($($lens),+), plan, plan_bytes)
            }
            fn $run(
                device: *const crate::header::pw_device,
                desc: *const <$kernel as crate::kernels::Kernel>::Desc,
                args: *const <$kernel as crate::kernels::Kernel>::Args,
                stream: *mut std::ffi::c_void,
            ) {
                crate::kernels::run::<$kernel>(device, desc, args, stream)
            }
        }
    };
}
use kernel;

/// Where the lists of a device's plan lie.
fn places<K: Kernel>(kernel: &K) -> Places {
    Places::apart(kernel.lists())
}

/// The largest call of a descriptor, with its buffers nowhere; on a device with its lists at
/// those places. Refuses what no lengths and no buffers would make right.
fn largest<K: Kernel>(kernel: &K, places: Option<Places>) -> Result<K::Command<Recorded>, Refusal> {
    // SAFETY: all bytes of it may be 0.
    let nothing: K::Args = unsafe { std::mem::zeroed() };
    // SAFETY: nothing is followed.
    unsafe { kernel.command(&mut Placed::imagined(places), &nothing, &kernel.most()) }
}

/// What a descriptor takes.
fn needs<K: Kernel>(device: &Device, kernel: &K) -> Result<pw_needs, Refusal> {
    let (alignment, plan_bytes, workspace_bytes) = match &device.at {
        Place::Cpu { threads, .. } => {
            let needs = K::needs(&largest(kernel, None)?, threads.count())?;
            (ALIGNMENT, Places::close(kernel.lists()).bytes, needs.workspace_bytes)
        }
        Place::Plugin(plugin) => {
            let places = places(kernel);
            let command = K::on_device(largest(kernel, Some(places))?);
            command.check_shape()?;
            let bytes = plugin.needs(&command, Scratch::default()).map_err(Refusal::Plugin)?;
            (DEVICE_ALIGNMENT, places.bytes, bytes)
        }
    };
    Ok(pw_needs { struct_size: 0, alignment, plan_bytes, workspace_bytes })
}

/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn query<K: Kernel>(
    device: *const pw_device,
    desc: *const K::Desc,
    to: *mut pw_needs,
) -> Result<(), Refusal> {
    let device = DEVICES.get(device)?;
    // SAFETY: as the caller of this says.
    let kernel = K::new(&unsafe { read("desc", desc) }?)?;
    let told = needs(&device, &kernel)?;
    if to.is_null() {
        return Ok(());
    }
    // SAFETY: as the caller of this says.
    unsafe { write("needs", to, told) }
}

/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn plan<K: Kernel>(
    device: *const pw_device,
    desc: *const K::Desc,
    lens: K::Lens,
    to: *mut c_void,
    to_bytes: u64,
) -> Result<(), Refusal> {
    let device = DEVICES.get(device)?;
    // SAFETY: as the caller of this says.
    let desc = unsafe { read("desc", desc) }?;
    let kernel = K::new(&desc)?;
    needs(&device, &kernel)?;
    // SAFETY: as the caller of this says.
    let step = unsafe { kernel.step(lens) }?;
    let places = match device.at {
        Place::Cpu { .. } => Places::close(step.words()),
        Place::Plugin(_) => places(&kernel),
    };
    let expected = places.bytes;
    at_least("plan", to, to_bytes, expected)?;
    let plan_ends = to.addr().saturating_add(expected as usize);
    let overlaps = |list: &&[u32]| {
        let begins = list.as_ptr().addr();
        begins < plan_ends && to.addr() < begins + size_of_val(*list)
    };
    if step.lists.iter().any(overlaps) {
        let fault = Fault::Overlap { with: "the lengths" };
        return Err(Refusal::Number { field: "plan", fault });
    }
    // SAFETY: as the caller of this says; what is expected is a few lists.
    let plan = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), expected as usize) };
    if let Place::Plugin(_) = device.at {
        for (list, most) in kernel.lists().into_iter().enumerate() {
            let words = &mut plan[places.lists[list] as usize..][..4 * most as usize];
            K::absent(list, bytemuck::cast_slice_mut(words));
        }
    }
    Kind::of::<K>(&device, &desc).write(&step, &places, plan);
    Ok(())
}

/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn run<K: Kernel>(
    device: *const pw_device,
    desc: *const K::Desc,
    args: *const K::Args,
    stream: *mut c_void,
) -> Result<(), Refusal> {
    let device = DEVICES.get(device)?;
    // SAFETY: as the caller of this says.
    let (desc, args) = unsafe { (read("desc", desc)?, read("args", args)?) };
    layout::reserved(K::reserved(&args))?;
    let kernel = K::new(&desc)?;
    match &device.at {
        Place::Plugin(plugin) => enqueue(plugin, &kernel, &args, stream),
        Place::Cpu { .. } if !stream.is_null() => {
            let fault = Fault::Unused { needs: "a device with streams" };
            Err(Refusal::Number { field: "stream", fault })
        }
        Place::Cpu { level, threads } => {
            let kind = Kind::of::<K>(&device, &desc);
            // SAFETY: as the caller of this says.
            unsafe { run_here(*level, threads, &kernel, kind, &args) }
        }
    }
}

/// A call on the CPU, done when this returns.
///
/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn run_here<K: Kernel>(
    level: Level,
    threads: &Threads,
    kernel: &K,
    kind: Kind,
    args: &K::Args,
) -> Result<(), Refusal> {
    let (given, mut buffers) = (K::given(args), Buffers::new());
    at_least("plan", given.plan, given.plan_bytes, 0)?;
    // SAFETY: so many bytes are the caller's.
    let plan = unsafe { buffers.read("plan", given.plan.cast::<u8>(), given.plan_bytes)? };
    let step = kind.read(plan)?;
    let workspace = match (given.workspace.is_null(), given.workspace_bytes) {
        // Aligned, for those who see numbers in it.
        (true, 0) => bytemuck::cast_slice_mut::<u64, u8>(&mut []),
        (_, bytes) => {
            at_least("workspace", given.workspace, bytes, 0)?;
            // SAFETY: so many bytes are the caller's.
            unsafe { buffers.write("workspace", given.workspace.cast::<u8>(), bytes)? }
        }
    };
    // SAFETY: as the caller of this says.
    let command = unsafe { kernel.command(&mut Given(buffers), args, &step) }?;
    if step.counts[0] == 0 {
        K::nothing(command);
        return Ok(());
    }
    let _normal = environment::Normal::enter();
    Ok(K::run(level, threads, command, workspace)?)
}

/// A call on a device: all is looked over but what only the device can see, and enqueued.
fn enqueue<K: Kernel>(
    plugin: &Embedded,
    kernel: &K,
    args: &K::Args,
    stream: *mut c_void,
) -> Result<(), Refusal> {
    let (given, mut buffers) = (K::given(args), Buffers::new());
    let places = places(kernel);
    at_least("plan", given.plan, given.plan_bytes, places.bytes)?;
    buffers.name("plan", given.plan.cast::<u8>(), given.plan_bytes, false)?;
    if !given.workspace.is_null() || given.workspace_bytes != 0 {
        at_least("workspace", given.workspace, given.workspace_bytes, 0)?;
        let past = given.workspace.addr() as u64 % u64::from(DEVICE_ALIGNMENT);
        if past != 0 {
            let expected = DEVICE_ALIGNMENT.into();
            return Err(Refusal::Align { field: "workspace", expected, got: past });
        }
        buffers.name("workspace", given.workspace.cast::<u8>(), given.workspace_bytes, true)?;
    }
    let plan = given.plan.expose_provenance() as u64;
    let scratch = Scratch {
        workspace: given.workspace.expose_provenance() as u64,
        workspace_bytes: given.workspace_bytes,
        fault: plan + FAULT_AT,
    };
    let mut placed = Placed { buffers: Some(buffers), plan: Some((plan, places)) };
    // SAFETY: nothing is followed: it is memory of a device.
    let command = K::on_device(unsafe { kernel.command(&mut placed, args, &kernel.most()) }?);
    command.check_shape()?;
    // What lies in the plan is the plan's, whichever list it is.
    let its_own = plan..plan + places.bytes;
    let of_plan = |error: Error| match error.fault {
        Fault::Unsupported { got, .. } if its_own.contains(&(got as u64)) => {
            Error { field: "fault", ..error }
        }
        _ => error,
    };
    let expected = plugin.needs(&command, scratch).map_err(of_plan).map_err(Refusal::Plugin)?;
    if given.workspace_bytes < expected {
        let got = given.workspace_bytes;
        return Err(Refusal::Space { field: "workspace", expected, got });
    }
    plugin.launch(stream, &command, scratch).map_err(Refusal::Plugin)
}

export! {
    fn pw_plan_fault(device: *const pw_device, plan: *const c_void, plan_bytes: u64) {
        let device = DEVICES.get(device)?;
        let bytes = Buffers::new().read("plan", plan.cast::<u8>(), plan_bytes)?;
        match backends::plugin::fault(&plan::fault(&device, bytes)?) {
            Some(error) => Err(Refusal::Plugin(error)),
            None => Ok(()),
        }
    }
}

/// Bytes of the caller's that are aligned, and enough.
fn at_least(
    field: &'static str,
    at: *const c_void,
    got: u64,
    expected: u64,
) -> Result<(), Refusal> {
    aligned(field, at.cast::<Line>())?;
    if got < expected { Err(Refusal::Space { field, expected, got }) } else { Ok(()) }
}

/// What plans and workspaces are aligned to.
#[repr(align(64))]
struct Line;
const _: () = assert!(align_of::<Line>() == ALIGNMENT as usize);
