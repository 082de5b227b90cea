//! The index of prefixes: full pages by the tokens down to them.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read};
use crate::handles::Handles;
use crate::header::{self, pw_pages, pw_prefixes, pw_scope, pw_table};
use crate::memory::{Buffers, tell};
use crate::pages::{PAGES, Slab};
use crate::table::{Sequence, TABLES};
use kernels_core::error::{Checks, Fault};
use kv::{Miss, Prefixes, Scope, Table};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const CHECKS: Checks = Checks("prefixes");
/// Salts are names of clients.
const SALT_BYTES: i64 = 65_536;
const SAME: u32 = header::PW_SAME_WEIGHTS
    | header::PW_SAME_ADAPTER
    | header::PW_SAME_ADAPTER_VERSION
    | header::PW_SAME_SALT;

/// An index, which lets go of its pages when it goes.
struct Index {
    slab: Arc<Slab>,
    prefixes: Mutex<Prefixes>,
}

/// All that there are.
static PREFIXES: Handles<Index, pw_prefixes> = Handles::new(7, "prefixes");

// SAFETY: bindgen's struct of numbers and a pointer, the first of which is the size.
unsafe impl Sized32 for pw_scope {
    const LEAST: u32 = 40;
}

impl Index {
    /// What no panic leaves half done. Comes before the locks of tables and slabs.
    fn lock(&self) -> MutexGuard<'_, Prefixes> {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The full pages of a sequence's first tokens are found from now on; says how many are
    /// new.
    fn publish(&self, scope: &Scope, tokens: &[u32], sequence: &Sequence) -> Result<u32, Refusal> {
        let mut prefixes = self.lock();
        let table = sequence.lock();
        let len = self.slab.page_len as usize;
        let full = &tokens[..tokens.len() / len * len];
        if full.len() as u64 > table.tokens() {
            let (most, got) = (table.tokens() as i64, tokens.len() as i64);
            return Err(CHECKS.refuse("count", Fault::Range { least: 0, most, got }).into());
        }
        let mut state = self.slab.lock();
        // Nothing is being computed for this index, so what is claimed is all that lacks.
        let claims = prefixes.claim(scope, full);
        let there = full.len() / len - claims.len();
        let mut published = 0;
        for (claim, &page) in claims.into_iter().zip(&table.pages()[there..]) {
            let joined = prefixes.publish(&mut state.pages, claim, page);
            published += u32::from(joined.expect("the sequence holds it"));
        }
        Ok(published)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let prefixes = self.prefixes.get_mut().unwrap_or_else(PoisonError::into_inner);
        prefixes.forget(&mut self.slab.lock().pages, |_| true);
    }
}

/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn scope(of: *const pw_scope) -> Result<Scope, Refusal> {
    // SAFETY: as the caller of this says.
    let of = unsafe { read("scope", of) }?;
    CHECKS.range("salt_bytes", of.salt_bytes, 0..=SALT_BYTES)?;
    let salt = match of.salt_bytes {
        0 => &[][..],
        // SAFETY: as the caller of this says.
        bytes => unsafe { Buffers::new().read("salt", of.salt, bytes.into()) }?,
    };
    let pw_scope { weights, adapter, adapter_version, .. } = of;
    Ok(Scope { weights, adapter, adapter_version, salt: salt.into() })
}

fn miss(why: Miss) -> u32 {
    match why {
        Miss::PartialPage => header::PW_MISS_SHORT,
        Miss::Evicted => header::PW_MISS_EVICTED,
        Miss::Salt => header::PW_MISS_SALT,
        Miss::Version => header::PW_MISS_VERSION,
        // Claims do not outlast a call: nobody is waited for.
        Miss::Cold | Miss::Awaited => header::PW_MISS_COLD,
    }
}

export! {
    fn pw_prefixes_create(pages: *mut pw_pages, prefixes: *mut *mut pw_prefixes) {
        let slab = PAGES.get(pages)?;
        aligned("prefixes", prefixes)?;
        let empty = Mutex::new(Prefixes::new(slab.page_len));
        prefixes.write(PREFIXES.add(Index { slab, prefixes: empty }));
        Ok(())
    }
    fn pw_prefixes_find(
        prefixes: *mut pw_prefixes,
        of: *const pw_scope,
        tokens: *const u32,
        count: u32,
        table: *mut *mut pw_table,
        why: *mut u32,
    ) {
        let index = PREFIXES.get(prefixes)?;
        aligned("table", table)?;
        let (scope, tokens) = (scope(of)?, Buffers::new().words("tokens", tokens, count)?);
        if !why.is_null() {
            aligned("miss", why)?;
        }
        let found = index.lock().find(&mut index.slab.lock().pages, &scope, tokens);
        let begun = Table::starting_with(index.slab.page_len, found.pages);
        table.write(TABLES.add(Sequence::new(index.slab.clone(), begun)));
        if why.is_null() { Ok(()) } else { tell("miss", why, miss(found.miss)) }
    }
    fn pw_prefixes_probe(
        prefixes: *const pw_prefixes,
        of: *const pw_scope,
        tokens: *const u32,
        count: u32,
        pages: *mut u32,
        idle: *mut u32,
    ) {
        let index = PREFIXES.get(prefixes)?;
        aligned("pages", pages)?;
        aligned("idle", idle)?;
        let (scope, tokens) = (scope(of)?, Buffers::new().words("tokens", tokens, count)?);
        let probe = index.lock().probe(&index.slab.lock().pages, &scope, tokens);
        tell("pages", pages, probe.pages)?;
        tell("idle", idle, probe.idle)
    }
    fn pw_prefixes_publish(
        prefixes: *mut pw_prefixes,
        of: *const pw_scope,
        tokens: *const u32,
        count: u32,
        table: *const pw_table,
        published: *mut u32,
    ) {
        let (index, sequence) = (PREFIXES.get(prefixes)?, TABLES.get(table)?);
        aligned("published", published)?;
        let (scope, tokens) = (scope(of)?, Buffers::new().words("tokens", tokens, count)?);
        if !Arc::ptr_eq(&index.slab, &sequence.slab) {
            let fault = Fault::Unused { needs: "the pages of this index" };
            return Err(Refusal::Number { field: "table", fault });
        }
        tell("published", published, index.publish(&scope, tokens, &sequence)?)
    }
    fn pw_prefixes_evict(prefixes: *mut pw_prefixes, wanted: u32, freed: *mut u32) {
        let index = PREFIXES.get(prefixes)?;
        aligned("freed", freed)?;
        let evicted = index.lock().evict(&mut index.slab.lock().pages, wanted);
        tell("freed", freed, evicted)
    }
    fn pw_prefixes_forget(prefixes: *mut pw_prefixes, of: *const pw_scope, same: u32) {
        let index = PREFIXES.get(prefixes)?;
        let this = scope(of)?;
        if same & !SAME != 0 {
            let fault = Fault::Range { least: 0, most: SAME.into(), got: same.into() };
            return Err(Refusal::Number { field: "same", fault });
        }
        let stale = |other: &Scope| {
            [
                (header::PW_SAME_WEIGHTS, this.weights == other.weights),
                (header::PW_SAME_ADAPTER, this.adapter == other.adapter),
                (
                    header::PW_SAME_ADAPTER_VERSION,
                    this.adapter_version == other.adapter_version,
                ),
                (header::PW_SAME_SALT, this.salt == other.salt),
            ]
            .iter()
            .all(|(bit, equal)| same & bit == 0 || *equal)
        };
        index.lock().forget(&mut index.slab.lock().pages, stale);
        Ok(())
    }
}

export!(destroy pw_prefixes_destroy, pw_prefixes, PREFIXES);
