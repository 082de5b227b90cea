//! `pagewise info`: a model's shapes, its memory and what fits.

use super::load::{Plan, plan, shape};
use super::{Failure, sized};
use crate::backend;
use crate::config;
use checkpoint::Checkpoint;
use std::io::Write;

/// Tells it.
pub fn run(settings: &config::Info, out: &mut impl Write) -> Result<(), Failure> {
    let Plan { folder, config, settings, page_bytes } = plan(&settings.model, &settings.running)?;
    let tensors = Checkpoint::open(&folder)?.tensors;
    let count: u64 = tensors.values().map(|tensor| tensor.shape().iter().product::<u64>()).sum();
    let bytes: u64 = tensors.values().map(|tensor| tensor.bytes().len() as u64).sum();
    let token = page_bytes as f64 / f64::from(settings.page_len);
    let tokens = u64::from(settings.pages) * u64::from(settings.page_len);
    writeln!(out, "folder    {}", folder.display())?;
    writeln!(out, "model     {}", shape(&config))?;
    writeln!(out, "weights   {count} numbers in {} tensors, {}", tensors.len(), sized(bytes))?;
    writeln!(out, "context   {} tokens", config.max_len)?;
    let kind = settings.kv.name();
    writeln!(
        out,
        "kv cache  {kind}: {} a token, {} a page",
        sized(token as u64),
        sized(page_bytes)
    )?;
    if let Some(free) = backend::free_bytes() {
        let rest = free.saturating_sub(bytes);
        writeln!(out, "memory    {} free, {} beside the weights", sized(free), sized(rest))?;
    }
    writeln!(
        out,
        "fits      {} pages of {} tokens: {tokens} tokens, or {} answers of {} at once",
        settings.pages,
        settings.page_len,
        tokens / u64::from(settings.max_len),
        settings.max_len
    )?;
    Ok(())
}
