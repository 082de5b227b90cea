//! The model that guesses for the one that is served.

use super::Failure;
use super::load::shape;
use crate::config::{self, Running};
use crate::hub;
use crate::text::Text;
use crate::text::tokenizer::Tokenizer;
use checkpoint::Checkpoint;
use engine::engine::Guessing;
use std::path::PathBuf;

/// A model that guesses for another.
pub struct Drafter {
    /// Where it lies.
    pub folder: PathBuf,
    /// Its shape, and its tensors.
    pub checkpoint: Checkpoint,
}

impl Drafter {
    /// The one that the settings name.
    pub fn open(of: &config::Model, running: &Running) -> Result<Option<Self>, Failure> {
        if let Some(option) = running.guessing.idle() {
            return Err(Failure::Setting(format!("{option}: --draft-tokens says how many")));
        }
        let Some(model) = running.guessing.model(of) else { return Ok(None) };
        let folder = hub::folder(&model)?;
        Ok(Some(Self { checkpoint: Checkpoint::open(&folder)?, folder }))
    }

    /// Refuses one that does not know the same tokens, as far as it says which.
    pub fn check(&self, vocab: u32, text: &Text) -> Result<(), Failure> {
        let own = self.checkpoint.config.vocab;
        if own != vocab {
            let words = format!("--draft-model: it knows {own} tokens, the model {vocab}");
            return Err(Failure::Setting(words));
        }
        let path = self.folder.join("tokenizer.json");
        if path.is_file() && Tokenizer::open(&path)?.answer_bytes() != text.tokenizer.answer_bytes()
        {
            let words = "--draft-model: its tokens are not those of the model";
            return Err(Failure::Setting(words.into()));
        }
        Ok(())
    }
}

/// What is guessed, and by whom, in a line.
pub fn told(guessing: &Guessing, drafter: Option<&Drafter>) -> String {
    let who = drafter.map_or("what came before".into(), |drafter| {
        let (shape, folder) = (shape(&drafter.checkpoint.config), drafter.folder.display());
        format!("{folder}: {shape}")
    });
    let Guessing { tokens, paths, rows } = guessing;
    format!("{tokens} tokens along {paths} paths, {rows} in a step, by {who}")
}
