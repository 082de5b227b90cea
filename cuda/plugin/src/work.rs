//! What work is enqueued on, recorded as and waited for: streams, graphs and events. Each is
//! destroyed with the Rust value, if it is ours.

use crate::context::Context;
use crate::driver::call;
use crate::refusal;
use cust::sys::{
    CUevent, CUevent_flags, CUgraph, CUgraphExec, CUstream, CUstream_flags, CUstreamCaptureMode,
};
use kernels_core::Error;
use kernels_core::error::Fault;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

/// Work in its order.
pub struct Stream {
    context: Arc<Context>,
    raw: CUstream,
    /// Of the host: it stays, and it is the host's to record.
    is_hosts: bool,
}

impl Stream {
    /// One of its own, which waits for nobody's default stream.
    pub fn own(context: &Arc<Context>) -> Result<Self, Error> {
        let (mut raw, flags) = (null_mut(), CUstream_flags::CU_STREAM_NON_BLOCKING);
        let _entered = context.enter()?;
        call!(cuStreamCreate(&mut raw, flags as u32))?;
        Ok(Self { context: context.clone(), raw, is_hosts: false })
    }

    /// The host's.
    pub fn of_host(context: &Arc<Context>, native: *mut c_void) -> Result<Self, Error> {
        let (raw, mut of) = (native.cast(), null_mut());
        let _entered = context.enter()?;
        call!(cuStreamGetCtx(raw, &mut of))?;
        refusal::of_stream(of, context.raw())?;
        Ok(Self { context: context.clone(), raw, is_hosts: true })
    }

    /// Its handle.
    pub fn raw(&self) -> CUstream {
        self.raw
    }

    /// From here on what is launched on it is recorded.
    pub fn begin(&mut self) -> Result<(), Error> {
        if self.is_hosts {
            let expected = "graphs on streams of its own: the host records the host's";
            let fault = Fault::Unsupported { expected, got: 0 };
            return Err(Error::new("device", "stream", fault));
        }
        // Between begin and end this thread does nothing that may not be recorded; what others
        // do is none of ours.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let _entered = self.context.enter()?;
        Ok(call!(cuStreamBeginCapture_v2(self.raw, mode))?)
    }

    /// What was recorded.
    pub fn end(&mut self) -> Result<Graph, Error> {
        let _entered = self.context.enter()?;
        let (mut recorded, mut raw): (CUgraph, CUgraphExec) = (null_mut(), null_mut());
        call!(cuStreamEndCapture(self.raw, &mut recorded))?;
        let made = call!(cuGraphInstantiateWithFlags(&mut raw, recorded, 0));
        // What was recorded is only the plan of what was made.
        let _ = call!(cuGraphDestroy(recorded));
        made?;
        Ok(Graph { context: self.context.clone(), raw })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_hosts {
            self.context.destroy(|| call!(cuStreamDestroy_v2(self.raw)));
        }
    }
}

/// Launches that were recorded together.
pub struct Graph {
    context: Arc<Context>,
    raw: CUgraphExec,
}

impl Graph {
    /// Enqueues it.
    pub fn launch(&mut self, stream: &Stream) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        Ok(call!(cuGraphLaunch(self.raw, stream.raw))?)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.context.destroy(|| call!(cuGraphExecDestroy(self.raw)));
    }
}

/// A point of a stream.
pub struct Event {
    context: Arc<Context>,
    raw: CUevent,
}

impl Event {
    /// One that no stream has, without a clock: those are cheaper.
    pub fn new(context: &Arc<Context>) -> Result<Self, Error> {
        let (mut raw, flags) = (null_mut(), CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let _entered = context.enter()?;
        call!(cuEventCreate(&mut raw, flags as u32))?;
        Ok(Self { context: context.clone(), raw })
    }

    /// It is here now.
    pub fn record(&mut self, stream: &Stream) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        Ok(call!(cuEventRecord(self.raw, stream.raw))?)
    }

    /// Whether all before it is done.
    pub fn is_done(&self) -> Result<bool, Error> {
        let _entered = self.context.enter()?;
        match call!(cuEventQuery(self.raw)) {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_not_ready() => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Waits until it is.
    pub fn wait(&self) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        Ok(call!(cuEventSynchronize(self.raw))?)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.context.destroy(|| call!(cuEventDestroy_v2(self.raw)));
    }
}
