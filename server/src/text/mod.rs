//! Text and tokens: what turns one into the other, and a conversation into a prompt.

pub mod calls;
pub mod characters;
pub mod template;
pub mod tokenizer;

use calls::Form;
use lru::LruCache;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use template::{Template, Told};
use tokenizer::Tokenizer;

/// Templates of requests that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// What a checkpoint says of its text.
pub struct Text {
    /// Text to tokens, tokens to bytes.
    pub tokenizer: Tokenizer,
    /// A conversation to a prompt, if the checkpoint has a template.
    template: Option<Arc<Template>>,
    /// Special tokens by the names that templates use.
    special: BTreeMap<String, String>,
    /// Tokens that the model was trained on, where `model_max_length` says it: its positions
    /// may go further.
    pub len_max: Option<u32>,
    /// Those that came with requests, by their source.
    remembered: Mutex<LruCache<String, Arc<Template>>>,
}

impl Text {
    /// From a checkpoint's folder: `tokenizer.json`, and, where they are,
    /// `tokenizer_config.json` and `chat_template.jinja`.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let tokenizer = Tokenizer::open(&folder.join("tokenizer.json"))?;
        let Told { source, special, len_max } = template::of_checkpoint(folder)?;
        let compile = |source| Template::compile(source, special.clone()).map(Arc::new);
        let template = source.map(compile).transpose()?;
        let remembered = Mutex::new(LruCache::new(REMEMBERED));
        Ok(Self { tokenizer, template, special, len_max, remembered })
    }

    /// How the model writes calls of tools, by its template.
    pub fn form(&self) -> Form {
        self.template.as_ref().map_or(Form::Hermes, |template| template.form)
    }

    /// The checkpoint's template.
    pub fn template(&self) -> Option<Arc<Template>> {
        self.template.clone()
    }

    /// The template of a request.
    pub fn template_of(&self, source: String) -> Result<Arc<Template>, Error> {
        let memory = || self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = memory().get(&source) {
            return Ok(template.clone());
        }
        let template = Arc::new(Template::compile(source.clone(), self.special.clone())?);
        memory().put(source, template.clone());
        Ok(template)
    }
}

/// Why text and tokens do not become each other.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A template does not compile, or refuses a conversation.
    Template(String),
    /// A text has no tokens.
    Encode(String),
    /// Tokens have no text.
    Decode(String),
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, why } => write!(to, "{}: {why}", path.display()),
            Self::Template(why) => write!(to, "the chat template refuses: {why}"),
            Self::Encode(why) => write!(to, "the tokenizer refuses the text: {why}"),
            Self::Decode(why) => write!(to, "the tokenizer refuses the tokens: {why}"),
        }
    }
}

impl std::error::Error for Error {}
