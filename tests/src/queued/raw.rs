//! A call through the table itself, as no backend makes it.

use super::{Queued, Watch};
use kernels_core::Error;
use kernels_core::params;
use plugin::{pwp_buffer, pwp_call, pwp_error};
use std::ptr::{from_ref, null_mut};

/// Bytes of each of the call's buffers.
const BYTES: u64 = 64;

impl Watch {
    /// What is said of a gather of one row that is launched with so much scratch.
    pub fn launched_with(&self, workspace_bytes: u64) -> Option<Error> {
        let params = params::Gather {
            x_row_stride: 4,
            out_row_stride: 4,
            x_rows: 1,
            rows_max: 1,
            columns: 4,
            dtype: params::DTYPE_F32,
        };
        let (table, kernel) = (plugin::table::<Queued>(), "gather");
        let mut error = pwp_error::default();
        let (mut device, mut stream, mut memory) = (null_mut(), null_mut(), [0; 5]);
        // SAFETY: handles and addresses are what the table gave, and go back to it in the end;
        // the call is one of gather, with its parameters and as many buffers as it has.
        let launched = unsafe {
            let whole = "a table of this build is whole";
            assert_eq!(table.open.expect(whole)(self.ordinal, &mut device, &mut error), 0);
            let open = table.stream_open.expect(whole);
            assert_eq!(open(device, null_mut(), &mut stream, &mut error), 0);
            let alloc = table.alloc.expect(whole);
            for address in &mut memory {
                assert_eq!(alloc(device, BYTES.max(workspace_bytes), address, &mut error), 0);
            }
            let [x, indices, out, workspace, fault] = memory;
            let buffers = [x, indices, out, 0].map(|address| pwp_buffer { address, bytes: BYTES });
            let call = pwp_call {
                kernel: kernel.as_ptr().cast(),
                params: from_ref(&params).cast(),
                buffers: buffers.as_ptr(),
                kernel_bytes: kernel.len() as u64,
                params_bytes: size_of_val(&params) as u64,
                buffer_count: buffers.len() as u64,
                workspace,
                workspace_bytes,
                fault,
                command: 0,
                reserved: 0,
            };
            let launched = table.launch.expect(whole)(device, stream, &call, &mut error);
            let (mut event, record) = (null_mut(), table.event_record.expect(whole));
            let mut ignored = pwp_error::default();
            assert_eq!(table.event_open.expect(whole)(device, &mut event, &mut ignored), 0);
            assert_eq!(record(device, stream, event, &mut ignored), 0);
            assert_eq!(table.event_wait.expect(whole)(device, event, &mut ignored), 0);
            table.event_close.expect(whole)(device, event);
            memory.into_iter().for_each(|address| table.free.expect(whole)(device, address));
            table.stream_close.expect(whole)(device, stream);
            table.close.expect(whole)(device);
            launched
        };
        (launched != 0).then(|| plugin::told(kernel, &error))
    }
}
