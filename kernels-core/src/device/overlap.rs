//! In and out overlap only where a contract says so.

use super::{BUFFERS_MAX, Command, Slice};
use crate::Error;
use crate::command::Access;
use crate::error::Fault;

/// Refuses a written slice that overlaps any other slice of the command.
pub fn check_overlap(command: &Command) -> Result<(), Error> {
    let mut seen: [Option<(&'static str, Access, Slice)>; BUFFERS_MAX] = [None; BUFFERS_MAX];
    let mut count = 0;
    let mut outcome = Ok(());
    command.slices(|field, access, slice| {
        for (other_field, other_access, other) in seen[..count].iter().flatten() {
            let both_read = access == Access::Read && *other_access == Access::Read;
            if outcome.is_ok() && !both_read && overlap(slice, *other) {
                let fault = Fault::Overlap { with: other_field };
                outcome = Err(Error::new(command.kernel(), field, fault));
            }
        }
        seen[count] = Some((field, access, slice));
        count += 1;
    });
    outcome
}

fn overlap(a: Slice, b: Slice) -> bool {
    a.buffer == b.buffer
        && a.bytes > 0
        && b.bytes > 0
        && a.offset < b.offset.saturating_add(b.bytes)
        && b.offset < a.offset.saturating_add(a.bytes)
}
