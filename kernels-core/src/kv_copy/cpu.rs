//! `kv_copy` on the CPU: workers take the K or the V of some heads and go through all
//! entries in order, so that order holds whatever their number.

use super::{ENTRY_WORDS, KvCopy};
use crate::command::{Host, cast, live};
use crate::error::{Error, Fault};
use crate::kv_layout::Place;
use crate::params;
use crate::simd::Level;
use crate::workers::{PageColumns, Slabs, Workers, split};

/// Bytes worth a thread of their own: below this a second one costs more than it brings.
const TILE_BYTES: u64 = 65_536;

/// Runs the command. It takes no workspace, and no level copies another way.
pub fn run(_level: Level, workers: &dyn Workers, copy: KvCopy<Host<'_>>) -> Result<(), Error> {
    let kv = copy.layout()?;
    let p = copy.params;
    let count = live(KvCopy::<Host>::CHECKS, "count", copy.count, p.entries_max)?;
    let entries = &cast::<[u32; ENTRY_WORDS]>(copy.entries)[..count];
    let tokens = check_entries(&p, entries)?;
    let columns = 2 * p.kv.kv_heads;
    let row_bytes = u64::from(columns) * kv.dim_cells() * kv.cell_bytes();
    let bytes = tokens.saturating_mul(row_bytes);
    let most = u64::from(columns.min(workers.count()));
    let tiles = (bytes / TILE_BYTES).clamp(1, most) as u32;
    let slabs = Slabs { keys: copy.keys, values: copy.values, scales: copy.scales };
    split(workers, tiles, PageColumns::new(&kv, slabs, tiles), |_, mut pages| {
        for &[from_page, from_token, to_page, to_token, tokens] in entries {
            if tokens == 0 {
                continue;
            }
            for (head, part) in pages.columns() {
                let from = Place { page: from_page, head, token: from_token };
                let to = Place { page: to_page, head, token: to_token };
                pages.copy(part, from, to, tokens);
            }
        }
    });
    Ok(())
}

/// Every entry lies in the pages; how many tokens they copy.
fn check_entries(p: &params::KvCopy, entries: &[[u32; ENTRY_WORDS]]) -> Result<u64, Error> {
    let mut total = 0;
    for (at, entry) in entries.iter().enumerate() {
        let [_, from_token, _, to_token, tokens] = *entry;
        let (page_most, len) = (p.kv.pages - 1, p.kv.page_len);
        let tokens_most = p.tokens_max.min(len.saturating_sub(from_token.max(to_token)));
        // An entry of no tokens may name the end of a page.
        let most = [page_most, len, page_most, len, tokens_most];
        for (i, (&got, &most)) in entry.iter().zip(&most).enumerate() {
            if got > most {
                let at = (at * ENTRY_WORDS + i) as u64;
                let fault = Fault::Element { at, least: 0, most: most.into(), got: got.into() };
                return Err(KvCopy::<Host>::CHECKS.refuse("entries", fault));
            }
        }
        total += u64::from(tokens);
    }
    Ok(total)
}
