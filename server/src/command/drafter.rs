//! The model that guesses for the one that is served.

use super::Failure;
use super::load::{packed, quantize, shape};
use crate::config::{self, Quantize, Running};
use crate::hub;
use crate::text::Text;
use crate::text::tokenizer::Tokenizer;
use checkpoint::Checkpoint;
use engine::engine::Guessing;
use engine::weights;
use std::path::PathBuf;

/// A model that guesses for another.
pub enum Drafter {
    /// One of its own.
    Model {
        /// Where it lies.
        folder: PathBuf,
        /// Its shape, and its tensors.
        checkpoint: Box<Checkpoint>,
    },
    /// The model that is served, without an adapter.
    Base {
        /// The format in which it guesses; none, as it is served.
        format: Quantize,
    },
}

impl Drafter {
    /// The one that the settings name.
    pub fn open(of: &config::Model, running: &Running) -> Result<Option<Self>, Failure> {
        if let Some(option) = running.guessing.idle() {
            return Err(Failure::Setting(format!("{option}: --draft-tokens says how many")));
        }
        if let Some(format) = running.guessing.base() {
            return Self::base(format, running).map(Some);
        }
        let Some(model) = running.guessing.model(of) else { return Ok(None) };
        let folder = hub::folder(&model)?;
        Ok(Some(Self::Model { checkpoint: Checkpoint::open(&folder)?.into(), folder }))
    }

    fn base(format: Quantize, running: &Running) -> Result<Self, Failure> {
        if format == Quantize::None && running.adapters.slots().is_none() {
            let words = "--draft base: it guesses for adapters, and --max-loras leaves none; or \
                         for itself, in another format (--draft-quantize)";
            return Err(Failure::Setting(words.into()));
        }
        if format != Quantize::None && format == running.quantize {
            let words = "--draft-quantize: that is the format of --quantize, which needs no other \
                         weights to guess";
            return Err(Failure::Setting(words.into()));
        }
        Ok(Self::Base { format })
    }

    /// What the base's weights become to guess, where they become something.
    pub fn repacked(&self) -> Option<weights::Quantize> {
        match self {
            Self::Model { .. } => None,
            Self::Base { format } => quantize(*format),
        }
    }

    /// Refuses one that does not know the same tokens, as far as it says which.
    pub fn check(&self, vocab: u32, text: &Text) -> Result<(), Failure> {
        let Self::Model { folder, checkpoint } = self else { return Ok(()) };
        let own = checkpoint.config.vocab;
        if own != vocab {
            let words = format!("--draft-model: it knows {own} tokens, the model {vocab}");
            return Err(Failure::Setting(words));
        }
        let path = folder.join("tokenizer.json");
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
    let who = match drafter {
        None => "what came before".into(),
        Some(Drafter::Base { format: Quantize::None }) => "the base, for adapters".into(),
        Some(Drafter::Base { format }) => format!("the base: {}", packed(*format)),
        Some(Drafter::Model { folder, checkpoint }) => {
            format!("{}: {}", folder.display(), shape(&checkpoint.config))
        }
    };
    let Guessing { tokens, paths, rows } = guessing;
    format!("{tokens} tokens along {paths} paths, {rows} in a step, by {who}")
}
