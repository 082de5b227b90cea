//! The plugin's table on a driver that only pretends, `pretend.c`: it aborts where it is
//! misused, and in the end where something is left. `cargo xtask check --stage cuda` puts it in
//! the driver's place for these tests alone, one at a time.

use crate::driver::call;
use crate::{device::Cuda, pagewise_plugin};
use cust::sys::{CUcontext, CUgraph, CUstream, CUstreamCaptureMode};
use kernels_core::Error;
use kernels_core::error::Fault;
use kernels_core::params;
use plugin::{pwp_buffer, pwp_call, pwp_device, pwp_error, pwp_stream, pwp_table};
use std::ffi::c_void;
use std::ptr::{from_mut, from_ref, null_mut};

const WHOLE: &str = "the table is whole";

/// Calls a function of the table.
macro_rules! ask {
    ($function:ident($($argument:expr),*)) => {{
        let (function, mut error) = (plugin::table::<Cuda>().$function.expect(WHOLE), pwp_error::default());
        // SAFETY: handles are of this table and not given back, places are the caller's own.
        match unsafe { function($($argument,)* &mut error) } {
            0 => Ok(()),
            _ => Err(plugin::told("asked", &error)),
        }
    }};
}

/// A device of the table.
struct Device(*mut pwp_device);

impl Device {
    fn open() -> Self {
        let mut device = null_mut();
        ask!(open(0, &mut device)).expect("the driver pretends to have one");
        Self(device)
    }

    fn alloc(&self, bytes: u64) -> u64 {
        let mut address = 0;
        ask!(alloc(self.0, bytes, &mut address)).expect("it is little");
        address
    }

    fn free(&self, address: u64) {
        // SAFETY: it is of `alloc`, and nobody's after this.
        unsafe { plugin::table::<Cuda>().free.expect(WHOLE)(self.0, address) }
    }

    fn stream(&self, native: CUstream) -> Result<Stream<'_>, Error> {
        let mut stream = null_mut();
        ask!(stream_open(self.0, native.cast(), &mut stream))?;
        Ok(Stream { device: self, stream })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: it is of `open`, and all that it made was given back.
        unsafe { plugin::table::<Cuda>().close.expect(WHOLE)(self.0) }
    }
}

struct Stream<'a> {
    device: &'a Device,
    stream: *mut pwp_stream,
}

impl Stream<'_> {
    fn launch(&self, call: &pwp_call) -> Result<(), Error> {
        ask!(launch(self.device.0, self.stream, call))
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: it is of `stream_open`.
        unsafe { plugin::table::<Cuda>().stream_close.expect(WHOLE)(self.device.0, self.stream) }
    }
}

/// A call of a kernel on these buffers, with so much scratch.
fn call_of<P>(kernel: &str, params: &P, buffers: &[pwp_buffer], scratch: u64) -> pwp_call {
    pwp_call {
        kernel: kernel.as_ptr().cast(),
        params: from_ref(params).cast(),
        buffers: buffers.as_ptr(),
        kernel_bytes: kernel.len() as u64,
        params_bytes: size_of::<P>() as u64,
        buffer_count: buffers.len() as u64,
        workspace: 256,
        workspace_bytes: scratch,
        fault: 512,
        command: 0,
        reserved: 0,
    }
}

/// The same, to ask what it takes: nothing is told of where it would write.
fn asked<P>(kernel: &str, params: &P, buffers: &[pwp_buffer]) -> pwp_call {
    pwp_call { fault: 0, workspace: 0, ..call_of(kernel, params, buffers, 0) }
}

/// A norm of one row of 64 columns: what the driver that pretends knows a launch by.
fn norm() -> params::Norm {
    params::Norm {
        rows_max: 1,
        heads: 1,
        columns: 64,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_F32,
        out_dtype: params::DTYPE_F32,
        x_row_stride: 64,
        out_row_stride: 64,
        epsilon: 1e-6,
        ..Default::default()
    }
}

fn buffers<const N: usize>(addresses: [u64; N], bytes: u64) -> [pwp_buffer; N] {
    addresses.map(|address| pwp_buffer { address, bytes })
}

/// A stream of the host's in a context of its own: any address is one to this driver.
fn stream_in(context: CUcontext) -> CUstream {
    let mut stream = null_mut();
    call!(cuCtxPushCurrent_v2(context)).expect("there is room");
    call!(cuStreamCreate(&mut stream, 1)).expect("it pretends");
    call!(cuCtxPopCurrent_v2(&mut null_mut())).expect("it is there");
    stream
}

fn destroy(context: CUcontext, stream: CUstream) {
    call!(cuCtxPushCurrent_v2(context)).expect("there is room");
    call!(cuStreamDestroy_v2(stream)).expect("it is the host's still");
    call!(cuCtxPopCurrent_v2(&mut null_mut())).expect("it is there");
}

/// The device's own context, which the host has, too.
fn primary() -> CUcontext {
    let mut context = null_mut();
    call!(cuDevicePrimaryCtxRetain(&mut context, 0)).expect("it pretends");
    call!(cuDevicePrimaryCtxRelease_v2(0)).expect("it pretends");
    context
}

#[test]
fn the_table_is_the_one_that_is_exported() {
    let exported: *const pwp_table = pagewise_plugin();
    assert!(std::ptr::eq(exported, plugin::table::<Cuda>()));
}

#[test]
fn a_stream_of_the_hosts_is_worked_on_and_stays_the_hosts() {
    let device = Device::open();
    let native = stream_in(primary());
    let stream = device.stream(native).expect("it is of the primary context");
    let memory = [256; 3].map(|bytes| device.alloc(bytes));
    let [x, weight, out] = memory;
    let (params, buffers) = (norm(), buffers([x, weight, 0, out, 0], 256));
    let call = call_of("norm", &params, &buffers, 0);
    stream.launch(&call).expect("a launch needs no graph");
    // It is the host's to record: what is launched then is in the host's own graph.
    let error = ask!(graph_begin(device.0, stream.stream)).expect_err("it is the host's");
    assert_eq!(error.field, "stream");
    assert!(error.to_string().contains("graphs on streams of its own"), "{error}");
    let mut graph: CUgraph = null_mut();
    let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    call!(cuCtxPushCurrent_v2(primary())).expect("there is room");
    call!(cuStreamBeginCapture_v2(native, mode)).expect("it pretends");
    stream.launch(&call).expect("it may be recorded");
    call!(cuStreamEndCapture(native, &mut graph)).expect("it pretends");
    call!(cuGraphDestroy(graph)).expect("it pretends");
    call!(cuCtxPopCurrent_v2(&mut null_mut())).expect("it is there");
    drop(stream);
    memory.into_iter().for_each(|address| device.free(address));
    destroy(primary(), native);
}

#[test]
fn a_stream_of_another_context_is_refused_by_its_name() {
    let (device, mut other) = (Device::open(), 0u64);
    let other: CUcontext = from_mut(&mut other).cast();
    let native = stream_in(other);
    let error = device.stream(native).map(drop).expect_err("it is elsewhere");
    assert_eq!(error.field, "stream");
    assert!(matches!(error.fault, Fault::Unsupported { .. }), "{error}");
    drop(device);
    // Where that context is current when the device is opened, it is worked in.
    call!(cuCtxPushCurrent_v2(other)).expect("there is room");
    let device = Device::open();
    call!(cuCtxPopCurrent_v2(&mut null_mut())).expect("it is there");
    drop(device.stream(native).expect("it is of the device's context"));
    drop(device);
    destroy(other, native);
}

#[test]
fn memory_that_is_not_the_devices_is_refused_by_its_buffer() {
    let device = Device::open();
    let memory = [256; 3].map(|bytes| device.alloc(bytes));
    let [x, weight, out] = memory;
    let mut pinned: *mut c_void = null_mut();
    ask!(host_alloc(device.0, 256, &mut pinned)).expect("it is little");
    let stranger = [0f32; 64];
    let [of_host, of_nobody] = [pinned.addr(), stranger.as_ptr().addr()].map(|at| at as u64);
    let needs = |weight| {
        let (params, mut bytes) = (norm(), 0);
        let buffers = buffers([x, weight, 0, out, 0], 256);
        ask!(needs(device.0, &asked("norm", &params, &buffers), &mut bytes))
    };
    assert_eq!(needs(weight), Ok(()));
    // The last one begins on the device and ends elsewhere.
    let none = "memory of the device, and that is none the driver knows";
    let hosts = "memory of the device, and that is the host's";
    for (wrong, expected) in [(of_host, hosts), (of_nobody, none), (weight + 128, none)] {
        let error = needs(wrong).expect_err("it is elsewhere");
        assert_eq!(error.field, "weight");
        let got = if wrong == weight + 128 { weight + 383 } else { wrong };
        assert_eq!(error.fault, Fault::Unsupported { expected, got: got as i64 });
    }
    // So are scratch and what a fault is written to.
    let (params, buffers, mut bytes) = (norm(), buffers([x, weight, 0, out, 0], 256), 0);
    let good = asked("norm", &params, &buffers);
    let [fault, workspace] = [
        pwp_call { fault: of_host, ..good },
        pwp_call { workspace: of_host, workspace_bytes: 8, ..good },
    ];
    for (call, field) in [(fault, "fault"), (workspace, "workspace")] {
        let error = ask!(needs(device.0, &call, &mut bytes)).expect_err("it is elsewhere");
        assert_eq!(error.field, field);
    }
    // SAFETY: it is of `host_alloc`.
    unsafe { plugin::table::<Cuda>().host_free.expect(WHOLE)(device.0, pinned) };
    memory.into_iter().for_each(|address| device.free(address));
}

#[test]
fn too_little_scratch_is_refused_before_anything_is_launched() {
    let device = Device::open();
    let stream = device.stream(null_mut()).expect("one of its own");
    let kv = params::KvLayout {
        page_stride: 256,
        k_head_stride: 256,
        k_token_stride: 1,
        k_dim_stride: 16,
        v_head_stride: 256,
        v_token_stride: 8,
        v_offset: 128,
        pages: 2,
        page_len: 16,
        kv_heads: 1,
        head_dim: 8,
        dtype: params::DTYPE_F32,
        ..Default::default()
    };
    let params = params::KvCopy { kv, entries_max: 3, tokens_max: 16 };
    let memory = [2048, 60].map(|bytes| device.alloc(bytes));
    let [keys, entries] = memory;
    let mut buffers = buffers([keys, 0, 0, entries, 0], 2048);
    buffers[3].bytes = 60;
    let mut expected = 0;
    ask!(needs(device.0, &asked("kv_copy", &params, &buffers), &mut expected))
        .expect("it is a good call");
    assert!(expected > 0, "it takes some");
    for got in [0, expected - 1] {
        let error = stream.launch(&call_of("kv_copy", &params, &buffers, got));
        let error = error.expect_err("it is too little");
        assert_eq!((error.field, error.fault), ("workspace", Fault::Bytes { expected, got }));
    }
    memory.into_iter().for_each(|address| device.free(address));
}
