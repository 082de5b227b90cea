//! `pagewise info`: a model's shapes, its memory and what fits.

use super::load::{Plan, plan, shape};
use super::{Failure, sized};
use crate::backend::Machine;
use crate::config;
use checkpoint::Checkpoint;
use std::io::Write;

/// Tells it.
pub fn run(settings: &config::Info, out: &mut impl Write) -> Result<(), Failure> {
    let machine = Machine::open(&config::Machine::at(settings.place.clone()))?;
    let Plan { folder, checkpoint, settings, needs, available, unfit, .. } =
        plan(&settings.model, &settings.running, machine.available_bytes())?;
    let Checkpoint { config, tensors, .. } = checkpoint;
    let bytes: u64 = tensors.values().map(|tensor| tensor.bytes().len() as u64).sum();
    let token = needs.page / u64::from(settings.page_len);
    if machine.device().is_some() {
        writeln!(out, "machine   {}", machine.describe())?;
    }
    writeln!(out, "folder    {}", folder.display())?;
    writeln!(out, "model     {}", shape(&config))?;
    let count = tensors.len();
    writeln!(out, "files     {count} tensors, {}", sized(bytes))?;
    writeln!(out, "weights   {} in memory", sized(needs.weights))?;
    writeln!(out, "a step    {} in memory", sized(needs.workspace))?;
    writeln!(out, "context   {} tokens", config.max_len)?;
    let kind = settings.kv.name();
    writeln!(out, "kv cache  {kind}: {} a token, {} a page", sized(token), sized(needs.page))?;
    if let Some(available) = available {
        let beside = sized(needs.beside(available));
        writeln!(out, "memory    {} available, {beside} beside these", sized(available))?;
    }
    if let Some(why) = unfit {
        writeln!(out, "fits      not: {why}")?;
        return Ok(());
    }
    let tokens = u64::from(settings.pages) * u64::from(settings.page_len);
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
