//! Vocabularies, and the grammars that are compiled for them.

use crate::backend::THREADS_MAX;
use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read};
use crate::handles::Handles;
use crate::header::{pw_grammars, pw_grammars_options, pw_vocabulary};
use crate::memory::Buffers;
use grammar::{Compiler, Settings, Tokens};
use kernels_core::error::{Checks, Fault};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const CHECKS: Checks = Checks("vocabulary");

/// Behind a `pw_grammars`.
pub struct Grammars {
    pub compiler: Compiler,
    pub tokens: u32,
    /// Tokens that end a text.
    pub ends: Arc<[u32]>,
}

// SAFETY: bindgen's structs of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_vocabulary {
    const LEAST: u32 = 48;
}
// SAFETY: as above.
unsafe impl Sized32 for pw_grammars_options {
    const LEAST: u32 = 24;
}

/// All that there are.
pub static GRAMMARS: Handles<Grammars, pw_grammars> = Handles::new(2, "grammars");

/// What is not told is the default.
fn settings(asked: Option<pw_grammars_options>) -> Result<Settings, Refusal> {
    let usual = Settings::default();
    let Some(asked) = asked else { return Ok(usual) };
    CHECKS.range("threads", asked.threads, 0..=THREADS_MAX)?;
    let or = |number: u32, usual: usize| if number == 0 { usual } else { number as usize };
    Ok(Settings {
        threads: or(asked.threads, usual.threads),
        waiting: or(asked.waiting, usual.waiting),
        patience: match asked.patience_ms {
            0 => usual.patience,
            patience => Duration::from_millis(patience.into()),
        },
        kept_bytes: match asked.kept_bytes {
            0 => usual.kept_bytes,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        },
        ..usual
    })
}

/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn vocabulary(of: &pw_vocabulary) -> Result<(Tokens, Arc<[u32]>), Refusal> {
    CHECKS.range("tokens", of.tokens, 1..=1 << 24)?;
    let count = u64::from(of.tokens);
    CHECKS.range("special_count", of.special_count, 0..=of.tokens.into())?;
    CHECKS.range("end_count", of.end_count, 0..=of.tokens.into())?;
    let mut buffers = Buffers::new();
    let listed = |list: *const u32, count: u32| if count == 0 { None } else { Some(list) };
    // SAFETY: as the caller of this says.
    let (starts, special, ends) = unsafe {
        let starts = buffers.read("starts", of.starts, 8 * (count + 1))?;
        let mut words = |field, list, count: u32| match listed(list, count) {
            Some(list) => buffers.read(field, list, 4 * u64::from(count)).map(bytemuck::cast_slice),
            None => Ok(&[][..]),
        };
        let special: &[u32] = words("special", of.special, of.special_count)?;
        let ends: &[u32] = words("ends", of.ends, of.end_count)?;
        (bytemuck::cast_slice::<u8, u64>(starts), special, ends)
    };
    let refuse = |field, fault| Err(Refusal::Number { field, fault });
    if let Some(at) = starts.windows(2).position(|pair| pair[0] > pair[1]) {
        let (least, got) = (starts[at] as i64, starts[at + 1] as i64);
        return refuse("starts", Fault::Element { at: at as u64 + 1, least, most: i64::MAX, got });
    }
    if starts[0] != 0 {
        return refuse("starts", Fault::Equal { expected: 0, got: starts[0] as i64 });
    }
    CHECKS.elements("special", special, 0..=of.tokens - 1)?;
    CHECKS.elements("ends", ends, 0..=of.tokens - 1)?;
    let all = starts[starts.len() - 1];
    let bytes = match all {
        0 => &[][..],
        // SAFETY: as the caller of this says.
        _ => unsafe { buffers.read("bytes", of.bytes, all)? },
    };
    let word =
        |token: u32| &bytes[starts[token as usize] as usize..starts[token as usize + 1] as usize];
    let mut names = BTreeMap::new();
    for (at, &token) in (0..).zip(special) {
        let Ok(name) = std::str::from_utf8(word(token)) else {
            let fault = Fault::Element { at, least: 0, most: of.tokens.into(), got: token.into() };
            return refuse("special", fault);
        };
        names.insert(token, name.to_owned());
    }
    Ok((Tokens::new((0..of.tokens).map(word), &names, ends), ends.into()))
}

export! {
    fn pw_grammars_create(
        of: *const pw_vocabulary,
        options: *const pw_grammars_options,
        grammars: *mut *mut pw_grammars,
    ) {
        aligned("grammars", grammars)?;
        let asked = if options.is_null() { None } else { Some(read("options", options)?) };
        let (tokens, ends) = vocabulary(&read("vocabulary", of)?)?;
        let settings = settings(asked)?;
        crate::guard::threads()?;
        let compiler = Compiler::new(&tokens, settings);
        grammars.write(GRAMMARS.add(Grammars { compiler, tokens: tokens.count(), ends }));
        Ok(())
    }
}

export!(destroy pw_grammars_destroy, pw_grammars, GRAMMARS);
