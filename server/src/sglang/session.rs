//! Sessions: the server remembers the tokens of earlier requests, so that the next one
//! sends only what is new. Their keys and values are found as any prefix is.
//!
//! A streaming session is one line of text that grows by one request at a time. Any other
//! is a tree: each request goes on from one that has ended, by its name.

use crate::http::generate::json;
use crate::http::{Answer, Call, Server};
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sessions at a time.
const SESSIONS_MAX: usize = 4096;
/// Tokens that all of them keep together.
const TOKENS_MAX: usize = 1 << 26;
/// Characters of a session's name.
const NAME_MAX: usize = 256;
/// Seconds of a timeout, at most: a year.
const TIMEOUT_MAX: f64 = 365.0 * 86_400.0;

/// All sessions.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, Session>>>);

struct Session {
    /// No other has the same, also of the same name.
    mark: Arc<()>,
    /// Tokens that it may keep.
    capacity: usize,
    /// Whether it is one line of text.
    streaming: bool,
    /// After so long without a request it is forgotten.
    timeout: Option<Duration>,
    used: Instant,
    /// By the names of their requests; of a streaming one the last alone, under no name.
    nodes: HashMap<Arc<str>, Node>,
}

/// A request of a session.
struct Node {
    /// The one that it goes on from.
    parent: Option<Arc<str>>,
    /// Tokens that it keeps, or may come to keep while it has not ended.
    reserved: usize,
    /// Prompt and answer, when it has ended.
    said: Option<Said>,
}

#[derive(Clone)]
struct Said {
    prompt: Arc<[u32]>,
    answer: Arc<[u32]>,
}

/// What a request says of its session.
pub struct Place {
    id: String,
    from: Option<String>,
    offset: usize,
    replace: bool,
    drop_answer: bool,
}

/// A request in its session, from its beginning to its end. Dropped before that, the session
/// is as if it had not been.
pub struct Turn {
    sessions: Sessions,
    session: String,
    mark: Arc<()>,
    name: Arc<str>,
    /// Whether the session is one line of text.
    streaming: bool,
    /// In a streaming session, what was there before.
    before: Option<Node>,
    ended: bool,
}

impl Place {
    /// From `session_params`.
    pub fn read(given: Map<String, Value>) -> Result<Self, Refusal> {
        let mut fields = Fields::of(given);
        let place = |fields: &mut Fields| {
            Ok(Self {
                id: fields.must("id")?,
                from: fields.take("rid")?,
                offset: fields.take("offset")?.unwrap_or(0),
                replace: fields.switch("replace")?,
                drop_answer: fields.switch("drop_previous_output")?,
            })
        };
        let read = place(&mut fields).and_then(|place| fields.done().map(|()| place));
        read.map_err(|mut refusal: Refusal| {
            refusal.message = format!("session_params.{}", refusal.message);
            refusal.param = refusal.param.map(|param| format!("session_params.{param}"));
            refusal
        })
    }
}

impl Sessions {
    /// Begins a request: the tokens that it goes on from, if some.
    pub fn begin(&self, place: &Place, name: Arc<str>) -> Result<(Vec<u32>, Turn), Refusal> {
        let mut all = self.live();
        let session = all.get_mut(&place.id).ok_or_else(|| {
            Refusal::field("session_params.id", format!("there is no session `{}`", place.id))
        })?;
        session.used = Instant::now();
        if session.nodes.contains_key(&name) {
            let words = format!("the session has a request `{name}` already");
            return Err(Refusal::field("rid", words));
        }
        let (context, parent, before) =
            if session.streaming { session.append(place)? } else { session.branch(place)? };
        let node = Node { parent, reserved: 0, said: None };
        let key: Arc<str> = if session.streaming { "".into() } else { name };
        session.nodes.insert(key.clone(), node);
        let turn = Turn {
            sessions: self.clone(),
            session: place.id.clone(),
            mark: session.mark.clone(),
            name: key,
            streaming: session.streaming,
            before,
            ended: false,
        };
        Ok((context, turn))
    }

    /// All that are not to be forgotten.
    fn live(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, session| !session.is_stale(now));
        all
    }
}

impl Session {
    fn is_stale(&self, now: Instant) -> bool {
        let idle = self.nodes.values().all(|node| node.said.is_some());
        idle && self.timeout.is_some_and(|timeout| now.duration_since(self.used) > timeout)
    }

    fn reserved(&self) -> usize {
        self.nodes.values().map(|node| node.reserved).sum()
    }

    /// At the end of the line.
    fn append(&mut self, place: &Place) -> Result<Begun, Refusal> {
        if place.from.is_some() || place.offset > 0 || place.replace || place.drop_answer {
            let words = "a streaming session only grows: no `rid`, `offset`, `replace` or \
                         `drop_previous_output`";
            return Err(Refusal::field("session_params", words));
        }
        let last = self.nodes.values().next();
        if last.is_some_and(|node| node.said.is_none()) {
            let words = "Streaming session already has an active request.";
            return Err(Refusal::field("session_params", words));
        }
        let before = self.nodes.drain().next().map(|(_, node)| node);
        let context = before.as_ref().and_then(|node| node.said.clone());
        Ok((context.map_or_else(Vec::new, |said| said.all()), None, before))
    }

    /// After the request that it names, or as a new root.
    fn branch(&mut self, place: &Place) -> Result<Begun, Refusal> {
        let Some(from) = &place.from else {
            if place.replace {
                self.nodes.clear();
            }
            return Ok((Vec::new(), None, None));
        };
        let unknown = || {
            let words = format!("the session has no request `{from}`");
            Refusal::field("session_params.rid", words)
        };
        let (parent, node) = self.nodes.get_key_value(from.as_str()).ok_or_else(unknown)?;
        let parent = parent.clone();
        let said = node.said.clone().ok_or_else(|| {
            let words = format!("the request `{from}` has not ended");
            Refusal::field("session_params.rid", words)
        })?;
        if place.replace {
            self.cut_after(&parent);
        }
        let mut context = if place.drop_answer { said.prompt.to_vec() } else { said.all() };
        if place.offset > 0 {
            context.truncate(place.offset);
        }
        Ok((context, Some(parent), None))
    }

    /// Forgets all that went on from a request.
    fn cut_after(&mut self, root: &Arc<str>) {
        let mut cut = vec![root.clone()];
        while let Some(parent) = cut.pop() {
            let after = |node: &Node| node.parent.as_ref() == Some(&parent);
            cut.extend(self.nodes.extract_if(|_, node| after(node)).map(|(name, _)| name));
        }
    }
}

/// Tokens that a request goes on from, whose they are, and what it takes the place of.
type Begun = (Vec<u32>, Option<Arc<str>>, Option<Node>);

impl Said {
    fn all(&self) -> Vec<u32> {
        [&*self.prompt, &*self.answer].concat()
    }
}

impl Turn {
    /// Whether its session is one line of text.
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Its session, unless that was closed meanwhile.
    fn found<'a>(&self, all: &'a mut HashMap<String, Session>) -> Option<&'a mut Session> {
        all.get_mut(&self.session).filter(|session| Arc::ptr_eq(&session.mark, &self.mark))
    }

    /// Keeps room for so many tokens, prompt and answer.
    pub fn reserve(&self, tokens: usize) -> Result<(), Refusal> {
        let mut all = self.sessions.live();
        let everywhere: usize = all.values().map(Session::reserved).sum();
        let Some(session) = self.found(&mut all) else { return Ok(()) };
        let wanted = session.reserved().saturating_add(tokens);
        if wanted > session.capacity {
            let words = format!(
                "keeps {} tokens at most (`capacity_of_str_len`), and would have to keep {wanted}",
                session.capacity
            );
            return Err(Refusal::field("session_params", words));
        }
        if everywhere.saturating_add(tokens) > TOKENS_MAX {
            let words = format!("all sessions together keep {TOKENS_MAX} tokens at most");
            return Err(Refusal::field("session_params", words));
        }
        if let Some(node) = session.nodes.get_mut(&self.name) {
            node.reserved = tokens;
        }
        Ok(())
    }

    /// The request has ended with these.
    pub fn end(mut self, prompt: Arc<[u32]>, answer: Vec<u32>) {
        self.ended = true;
        let mut all = self.sessions.live();
        // It may have been closed, or cut, meanwhile.
        let Some(session) = self.found(&mut all) else { return };
        session.used = Instant::now();
        let Some(node) = session.nodes.get_mut(&self.name) else { return };
        node.reserved = prompt.len() + answer.len();
        node.said = Some(Said { prompt, answer: answer.into() });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut all = self.sessions.live();
        let Some(session) = self.found(&mut all) else { return };
        session.used = Instant::now();
        session.nodes.remove(&self.name);
        if let Some(before) = self.before.take() {
            session.nodes.insert(self.name.clone(), before);
        }
    }
}

/// `/open_session`: the name of a new one.
pub fn open(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let capacity: Option<usize> = call.either(&mut fields, "capacity_of_str_len")?;
        let name: Option<String> = call.either(&mut fields, "session_id")?;
        let streaming = call.either(&mut fields, "streaming")?.unwrap_or(false);
        let timeout: Option<f64> = call.either(&mut fields, "timeout")?;
        fields.done()?;
        let capacity =
            capacity.ok_or_else(|| Refusal::field("capacity_of_str_len", "is required"))?;
        if let Some(seconds) = timeout.filter(|seconds| !(0.0..=TIMEOUT_MAX).contains(seconds)) {
            let expected = format!("seconds from 0 to {TIMEOUT_MAX}");
            return Err(Refusal::expected("timeout", &expected, seconds));
        }
        if let Some(name) = name.as_ref().filter(|name| !(1..=NAME_MAX).contains(&name.len())) {
            let expected = format!("1 to {NAME_MAX} bytes");
            return Err(Refusal::expected("session_id", &expected, name.len()));
        }
        let mut all = server.kept.sessions.live();
        if all.len() >= SESSIONS_MAX {
            let words = format!("{SESSIONS_MAX} sessions are open: no more may be");
            return Err(Refusal::busy(words, Duration::from_secs(1)));
        }
        let name = name.unwrap_or_else(unnamed);
        if all.contains_key(&name) {
            return Err(Refusal::field("session_id", format!("the session `{name}` is open")));
        }
        let timeout = timeout.map(Duration::from_secs_f64);
        let (used, nodes) = (Instant::now(), HashMap::new());
        let mark = Arc::default();
        all.insert(name.clone(), Session { mark, capacity, streaming, timeout, used, nodes });
        Ok(json(Value::String(name).to_string().into_bytes()))
    })
}

/// `/close_session`: nothing is remembered of it.
pub fn close(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: Option<String> = call.either(&mut fields, "session_id")?;
        fields.done()?;
        let name = name.ok_or_else(|| Refusal::field("session_id", "is required"))?;
        server.kept.sessions.live().remove(&name);
        Ok(json(b"null".to_vec()))
    })
}

/// A name that nobody else has.
fn unnamed() -> String {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}", half(), half())
}
