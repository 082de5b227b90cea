//! Grammars are compiled on threads of their own, with stacks of their own: at once what is
//! small and takes little, all else by threads that stand back where others want the cores.
//! What was compiled is kept. Whoever waits does so for a bounded time; what was begun ends by its
//! own bounds, and is kept for the next who asks.

use crate::crew::{Crew, Shape};
use crate::matcher::Guided;
use crate::tokens::Special;
use crate::{Limits, Matcher, Refusal, Source, Tokens};
use llguidance::api::{GrammarInit, ParserLimits};
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Logger, ParserFactory};
use lru::LruCache;
use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Stack of a thread that compiles: a definition takes some kilobytes of it, and
/// [`Limits::definitions`] may follow each other. Only what is used takes memory.
const STACK_BYTES: usize = 256 << 20;
/// What a grammar takes besides its source and its lexer, roughly.
const GRAMMAR_BYTES: usize = 64 << 10;
/// What a byte of source takes in rules, roughly.
const BYTES_PER_SOURCE_BYTE: usize = 48;

/// Items that a property which may be left out adds to a row of the parser.
const ITEMS_PER_PROPERTY: usize = 5;

/// Bytes of a source that is small.
const SMALL_BYTES: usize = 16 << 10;
/// Steps in which the first states of what takes little are built: about 2 ms.
const LITTLE_FUEL: u64 = 100_000;

/// Slices of the vocabulary: where a text may go on by all tokens of one, none of them is
/// walked. Of letters in a string there are several, for strings of bounded length.
const BLANKS: &str = r"[\x20\x0A\x0D\x09]+";
const LETTER: &str = r#"[^"\\\x00-\x1F\x7F]"#;
const STRETCHES: [&str; 5] = ["{1,3}", "{1,6}", "{1,10}", "{1,30}", "+"];

/// By how much the threads of all else stand back.
const BACK: i32 = 15;

/// Letters of the compiler's own words.
const WHY_MAX: usize = 200;

/// How grammars are compiled.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What they may be.
    pub limits: Limits,
    /// Threads that compile what takes little; as many compile all else.
    pub threads: usize,
    /// Sources that wait for one at most: of those that take little, and of the rest.
    pub waiting: usize,
    /// How long one who asks waits.
    pub patience: Duration,
    /// Memory of what is kept, roughly.
    pub kept_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            threads: 2,
            waiting: 64,
            patience: Duration::from_secs(5),
            kept_bytes: 256 << 20,
        }
    }
}

/// Compiles grammars for one vocabulary.
pub struct Compiler {
    shared: Arc<Shared>,
    settings: Settings,
    crew: Crew<Source>,
    back: Arc<Crew<Source>>,
}

type Outcome = Result<Box<dyn Matcher>, Refusal>;

struct Shared {
    factory: ParserFactory,
    special: Special,
    limits: Limits,
    state: Mutex<State>,
}

struct State {
    kept: LruCache<Source, Kept>,
    kept_bytes: usize,
    kept_bytes_max: usize,
    /// Who waits for a source that is compiled, or will be.
    asked: HashMap<Source, Vec<Sender<Outcome>>>,
}

/// A grammar that was compiled, or why it was not.
struct Kept {
    outcome: Outcome,
    bytes: usize,
}

impl Compiler {
    /// Starts its threads.
    pub fn new(tokens: &Tokens, settings: Settings) -> Self {
        let factory = factory(tokens, &settings.limits);
        let state = State {
            kept: LruCache::unbounded(),
            kept_bytes: 0,
            kept_bytes_max: settings.kept_bytes,
            asked: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            factory,
            special: tokens.special.clone(),
            limits: settings.limits,
            state: Mutex::new(state),
        });
        let shape =
            Shape { name: "grammar", count: settings.threads, stack_bytes: STACK_BYTES, back: 0 };
        let work = shared.clone();
        let all = settings.limits.build_fuel;
        let back = Crew::new(Shape { name: "grammars", back: BACK, ..shape }, move |source| {
            let kept = work.compiled(&source, all);
            work.tell(source, kept);
        });
        let back = Arc::new(back);
        let (work, rest) = (shared.clone(), back.clone());
        let crew = Crew::new(shape, move |source| {
            match work.compiled(&source, LITTLE_FUEL.min(all)) {
                // What the compiler refuses may need more, if there is room to wait for it.
                Kept { outcome: Err(Refusal::Invalid { .. }), .. } => {
                    match rest.waiting() < settings.waiting {
                        true => rest.push([source]),
                        false => work.state().answer(&source, &Err(Refusal::Busy)),
                    }
                }
                kept => work.tell(source, kept),
            }
        });
        Self { shared, settings, crew, back }
    }

    /// A matcher of a source, at its beginning. Waits until it is compiled, but no longer
    /// than there is patience for.
    pub fn compile(&self, source: &Source) -> Outcome {
        self.settings.limits.bytes(source.bytes())?;
        let (sender, outcome) = mpsc::channel();
        {
            let mut state = self.shared.state();
            if let Some(kept) = state.kept.get(source) {
                return again(&kept.outcome);
            }
            // Each waits among its own: those that take much fill no place of those that do not.
            let small = source.bytes() <= SMALL_BYTES;
            let crew = if small { &self.crew } else { &*self.back };
            if let Some(asked) = state.asked.get_mut(source) {
                asked.push(sender);
            } else if crew.waiting() >= self.settings.waiting {
                return Err(Refusal::Busy);
            } else {
                state.asked.insert(source.clone(), vec![sender]);
                crew.push([source.clone()]);
            }
        }
        match outcome.recv_timeout(self.settings.patience) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(Refusal::TooSlow),
            Err(RecvTimeoutError::Disconnected) => unreachable!("each who asks is answered"),
        }
    }

    /// Grammars that are kept, and roughly how many bytes they take.
    pub fn kept(&self) -> (usize, usize) {
        let state = self.shared.state();
        (state.kept.len(), state.kept_bytes)
    }
}

impl Shared {
    /// What no panic leaves half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait for a source what came of it, and keeps that.
    fn tell(&self, source: Source, kept: Kept) {
        let mut state = self.state();
        state.answer(&source, &kept.outcome);
        state.keep(source, kept);
    }

    /// Compiles a source within so many steps for its first states.
    fn compiled(&self, source: &Source, build_fuel: u64) -> Kept {
        let refused = |refusal| Kept { outcome: Err(refusal), bytes: source.bytes() };
        let grammar = match source.read(&self.limits, &self.special) {
            Ok(grammar) => grammar,
            Err(refusal) => return refused(refusal),
        };
        // It catches its own panics, and tells them as errors.
        let limits =
            ParserLimits { initial_lexer_fuel: build_fuel, ..self.factory.limits().clone() };
        let parser = self.factory.create_parser_from_init_ext(
            GrammarInit::Serialized(grammar),
            Logger::new(0, 0),
            InferenceCapabilities::default(),
            limits,
        );
        let parser = match parser {
            Ok(parser) => parser,
            Err(error) => return refused(refusal(&error.to_string())),
        };
        let lexer_bytes = parser.parser.lexer_stats().num_bytes;
        let mut matcher = llguidance::Matcher::new(Ok(parser));
        // The first mask finds out what the lexer would find out for each copy.
        if let Err(error) = matcher.compute_mask() {
            return refused(refusal(&error.to_string()));
        }
        let bytes = GRAMMAR_BYTES + BYTES_PER_SOURCE_BYTE * source.bytes() + lexer_bytes;
        Kept { outcome: Ok(Box::new(Guided::new(matcher, self.special.clone()))), bytes }
    }
}

impl State {
    /// Tells all who wait for a source what came of it.
    fn answer(&mut self, source: &Source, outcome: &Outcome) {
        for asked in self.asked.remove(source).unwrap_or_default() {
            // Who ran out of patience does not listen any more.
            let _ = asked.send(again(outcome));
        }
    }

    /// Keeps what was compiled, and lets go of what was not asked for longest.
    fn keep(&mut self, source: Source, kept: Kept) {
        self.kept_bytes += kept.bytes;
        if let Some(before) = self.kept.put(source, kept) {
            self.kept_bytes -= before.bytes;
        }
        while self.kept_bytes > self.kept_bytes_max
            && let Some((_, gone)) = self.kept.pop_lru()
        {
            self.kept_bytes -= gone.bytes;
        }
    }
}

/// An outcome for one more who asks.
fn again(outcome: &Outcome) -> Outcome {
    match outcome {
        Ok(matcher) => Ok(matcher.fork()),
        Err(refusal) => Err(refusal.clone()),
    }
}

fn factory(tokens: &Tokens, limits: &Limits) -> ParserFactory {
    let letters = STRETCHES.iter().map(|many| format!("{LETTER}{many}"));
    let slices: Vec<String> = [BLANKS.to_owned()].into_iter().chain(letters).collect();
    let no_more = InferenceCapabilities::default();
    let factory = ParserFactory::new(&tokens.env, no_more, &slices);
    let mut factory = factory.expect("its own slices are good");
    factory.quiet();
    let bounds = factory.limits_mut();
    *bounds = ParserLimits {
        initial_lexer_fuel: limits.build_fuel,
        step_lexer_fuel: limits.mask_fuel,
        max_lexer_states: limits.states,
        max_items_in_row: ITEMS_PER_PROPERTY * limits.properties,
        verbose_errors: false,
        ..bounds.clone()
    };
    factory
}

/// What the compiler's words mean to a client.
fn refusal(error: &str) -> Refusal {
    // It may repeat all of the source.
    let lines: Vec<&str> = error.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let why = match lines[..] {
        // Parsers of expressions tell why in their last line.
        [first, .., last] if first.ends_with("regex parse error:") => format!("{first} {last}"),
        [first, ..] => first.to_owned(),
        [] => String::new(),
    };
    let why: String = why.chars().take(WHY_MAX).collect();
    let unsupported = |keyword: String| Refusal::Unsupported { at: String::new(), keyword };
    if let Some(format) = why.strip_prefix("Unknown format: ") {
        return unsupported(format!("format {format:?}"));
    }
    if why.starts_with("oneOf constraints are not supported") {
        return unsupported("oneOf of schemas that may hold together".to_owned());
    }
    let why = match why.as_str() {
        "NoExtension" | "NoExtensionBias" => "it allows nothing".to_owned(),
        _ => why,
    };
    Refusal::Invalid { at: String::new(), why }
}
