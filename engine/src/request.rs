//! What is asked of the engine, and what it answers: tokens and their bytes, no text.

use crate::engine::Made;
use crate::processor::{Keep, Kept, Processor};
use grammar::{Grammar, Search};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A prompt, and what to do with it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number, which its caller chooses: no two that live have the same.
    pub id: u64,
    /// Tokens of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// What to do with it.
    pub task: Task,
    /// Who asks.
    pub class: Class,
    /// Smaller comes first.
    pub priority: i32,
    /// What keeps its pages from all that have another salt.
    pub salt: Arc<[u8]>,
    /// The adapter that adds to the model, by its publisher's number.
    pub adapter: Option<u64>,
    /// The episode that it goes on with: the prompt follows what that has.
    pub episode: Option<u64>,
    /// The time, as given to `step`, at which it ends with what it has.
    pub deadline: Option<Duration>,
}

/// Who asks, which makes a difference where rollouts have a
/// [share](crate::engine::Settings::rollout_share).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Somebody who waits for the answer.
    #[default]
    Inference,
    /// A trainer, that asks for many.
    Rollout,
}

impl Class {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::Inference, Self::Rollout];

    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Rollout => "rollout",
        }
    }
}

/// What to do with a prompt.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every request generates")]
pub enum Task {
    /// Go on from it.
    Generate(Generate),
    /// Pool its hidden states.
    Embed(Pooling),
}

/// Which hidden states an embedding is of. It is scaled to length one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The last token's.
    Last,
    /// The mean of all.
    Mean,
}

/// How to go on from a prompt.
#[derive(Clone, Debug)]
pub struct Generate {
    /// Answers to one prompt; each draws its own noise.
    pub choices: u32,
    /// Tokens of an answer at most; 0 computes the prompt alone.
    pub max_new: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// When an answer ends.
    pub stop: Stop,
    /// What every answer keeps to: it ends where the grammar is complete and nothing more
    /// may come, and the model's own end comes where it may end.
    pub grammar: Option<Grammar>,
    /// Most likely tokens listed with each generated one; `None`: no log-probabilities.
    pub top: Option<u32>,
    /// Tokens whose log-probabilities are told with each generated one, and with each of the
    /// prompt that is scored.
    pub chosen: Arc<[u32]>,
    /// How the tokens that each was drawn from are told; `None`: not at all.
    pub kept: Option<Keep>,
    /// Most likely tokens listed with each of the prompt; `None`: nothing of the prompt.
    pub prompt_top: Option<u32>,
    /// With `prompt_top`, the first token of the prompt that is scored: those before it
    /// may come from pages that others filled. The very first token never has a score.
    pub prompt_from: u32,
}

impl Generate {
    /// Tokens that a request bans in a step at most: the model's ends, its own stop tokens,
    /// and one for each of its bad words.
    pub const BANNED_MAX: usize = 1024;
    /// Tokens of [`chosen`](Self::chosen) at most: each costs what drawing one does.
    pub const CHOSEN_MAX: usize = 32;
}

/// How tokens are drawn. Requests that are asked together share its lists.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Tokens kept at most; 0 keeps all.
    pub top_k: u32,
    /// Mass kept at least.
    pub top_p: f32,
    /// Least probability over that of the most likely token.
    pub min_p: f32,
    /// Key of the noise.
    pub seed: u64,
    /// Taken off the logits of tokens that were generated.
    pub presence: f32,
    /// Taken off for each time that a token was generated.
    pub frequency: f32,
    /// Divides the positive logits of tokens seen, multiplies the others; 1 is none.
    pub repetition: f32,
    /// Added to the logits of these tokens.
    pub bias: Arc<[(u32, f32)]>,
    /// If given, no other tokens are drawn.
    pub allowed: Option<Arc<[u32]>>,
    /// Sequences of tokens that do not come out.
    pub bad_words: Arc<[Vec<u32>]>,
    /// What changes from step to step.
    pub processors: Arc<[Processor]>,
}

/// When an answer ends, besides its length. Requests that are asked together share its lists.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Tokens that end it, the model's own besides them.
    pub tokens: Arc<[u32]>,
    /// Bytes that end it, wherever tokens divide them.
    pub strings: Arc<[Vec<u8>]>,
    /// Expressions that end it where one is found in its bytes; the answer keeps all of them.
    pub expressions: Option<Search>,
    /// The model's own end does not end it.
    pub ignore_eos: bool,
    /// Tokens before which none of these ends it.
    pub min_new: u32,
}

/// What happened in a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A request has its first seat: its prompt was begun in this step. Told once, before
    /// all else but an end.
    Admitted {
        /// The request.
        id: u64,
    },
    /// A request's prompt is computed: before its first token.
    Prompt {
        /// The request.
        id: u64,
        /// Tokens of the prompt that pages held already.
        cached: u32,
        /// Why there were no more.
        miss: Miss,
        /// One for each token of the prompt, the first and those before
        /// [`Generate::prompt_from`] without; empty if they were not asked for.
        logprobs: Vec<Option<Scored>>,
    },
    /// One more token of an answer.
    Token {
        /// The request.
        id: u64,
        /// Which of its answers.
        choice: u32,
        /// The token.
        token: Scored,
        /// What made it.
        made: Made,
        /// Bytes at the end of the answer so far that may begin one of
        /// [`Stop::strings`]: whoever hands the answer on keeps them back.
        held: usize,
    },
    /// An answer has ended. Each choice of a request that was taken ends once, after its
    /// last token. Where an embedding fails, it ends as choice 0.
    End {
        /// The request.
        id: u64,
        /// Which of its answers.
        choice: u32,
        /// Why.
        why: Finish,
        /// Tokens of it that were guessed.
        guessed: u32,
        /// Those of them that came indeed, without a step of their own.
        held: u32,
    },
    /// An embedding; nothing comes after it of its request.
    Embedding {
        /// The request.
        id: u64,
        /// As wide as the model's hidden states.
        values: Vec<f32>,
    },
}

/// Why no more of a prompt came from pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Miss {
    /// What is left fills no page, or is the last token, which is always computed.
    PartialPage,
    /// The next page was here, and had to go.
    Evicted,
    /// It is here under another salt.
    Salt,
    /// It is here under another version of the weights or of the adapter, or another
    /// adapter.
    Version,
    /// It was never here, as far as is remembered.
    Cold,
    /// Its hidden states are asked for: log-probabilities of the prompt, or their mean.
    Asked,
}

impl Miss {
    /// Every reason there is.
    pub const ALL: [Self; 6] =
        [Self::PartialPage, Self::Evicted, Self::Salt, Self::Version, Self::Cold, Self::Asked];

    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PartialPage => "partial_page",
            Self::Evicted => "evicted",
            Self::Salt => "salt",
            Self::Version => "version",
            Self::Cold => "cold",
            Self::Asked => "asked",
        }
    }
}

/// A token with its log-probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Before penalties, temperature and filters.
    pub raw: f32,
    /// After them: of what it was drawn from; of the prompt's tokens, the raw one.
    pub processed: f32,
    /// The most likely tokens and their raw ones, if they were asked for.
    pub top: Vec<(u32, f32)>,
    /// The raw ones of [`Generate::chosen`], in their order.
    pub chosen: Vec<f32>,
    /// The tokens that it was drawn from, if they were asked for; not of the prompt's.
    pub kept: Option<Kept>,
}

/// Why an answer has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It has as many tokens as it may.
    Length,
    /// The model's own end, which is its last token.
    Eos,
    /// A token of [`Stop::tokens`], which is its last one.
    Token(u32),
    /// Its grammar is complete, and the model has no token to say so; or its last list of
    /// [`Steps`](crate::processor::Steps) is, which end it.
    Complete,
    /// Bytes of [`Stop::strings`].
    String {
        /// Which of them.
        which: usize,
        /// Bytes of the answer before it.
        before: usize,
    },
    /// One of [`Stop::expressions`] is found in it: which of them.
    Expression(usize),
    /// It was cancelled.
    Cancelled,
    /// It was ended by those who serve it, who tell what it has.
    Aborted,
    /// Its deadline has passed.
    Deadline,
    /// What was asked of it lets nothing more come: in words.
    Stuck(String),
    /// It cannot go on: in words.
    Failed(String),
}

/// A request that is not taken, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The field at fault, as this module spells it.
    pub field: &'static str,
    /// What it must be.
    pub expected: String,
    /// What it is.
    pub got: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} must be {}, not {}", self.field, self.expected, self.got)
    }
}

impl std::error::Error for Refused {}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            presence: 0.0,
            frequency: 0.0,
            repetition: 1.0,
            bias: Arc::default(),
            allowed: None,
            bad_words: Arc::default(),
            processors: Arc::default(),
        }
    }
}
