//! A visit to a server: calls are made and told one by one, and what was changed is put back.

use super::call::{Call, Reply};
use super::part::{Difference, Noted, Part};
use crate::command::client::Client;
use crate::config::Doctor;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Differences of one call that are told.
const TOLD: usize = 4;
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Why calls that bring tensors are not made.
pub const BETWEEN_GPUS: &str = "it carries tensors between GPUs (NCCL, CUDA IPC)";

/// A call that is made while others are.
pub struct Begun {
    call: Call,
    reply: JoinHandle<Result<Reply, String>>,
}

/// Something that is to be put back.
#[derive(Clone, Copy, Debug)]
pub struct Undo(usize);

/// A visit.
pub struct Visit<'a> {
    /// How it is made.
    pub settings: &'a Doctor,
    client: Client,
    out: &'a mut dyn Write,
    /// Calls that are not answered as they must be.
    pub differing: usize,
    /// What puts the server back as it was, and was not made yet.
    undo: Vec<Option<Call>>,
}

impl<'a> Visit<'a> {
    /// To such a server.
    pub fn new(settings: &'a Doctor, client: Client, out: &'a mut dyn Write) -> Self {
        Self { settings, client, out, differing: 0, undo: Vec::new() }
    }

    /// The server's address.
    pub fn url(&self) -> String {
        self.client.url()
    }

    /// Makes a call whose reply is JSON that `check` reads; gives what it reads, if there is
    /// something to read.
    pub async fn ask<T>(
        &mut self,
        call: Call,
        check: impl FnOnce(&Part<'_>) -> T,
    ) -> io::Result<Option<T>> {
        let reply = self.make(&call).await;
        self.read(&call, reply, check)
    }

    /// Makes a call of which only the status is looked at; says whether it is well.
    pub async fn tell(&mut self, call: Call) -> io::Result<bool> {
        let reply = self.make(&call).await;
        self.status(&call, &reply)
    }

    /// Makes a call again and again until it is answered so, as long as a reply may take.
    pub async fn until(
        &mut self,
        call: Call,
        ready: impl Fn(&Reply) -> bool,
        check: impl FnOnce(&Part<'_>),
    ) -> io::Result<()> {
        let reply = self.awaited(&call, ready).await;
        self.read(&call, reply, check).map(drop)
    }

    /// The same of a call of which only the status is looked at.
    pub async fn until_well(&mut self, call: Call) -> io::Result<()> {
        let reply = self.awaited(&call, |reply| reply.status == 200).await;
        self.status(&call, &reply).map(drop)
    }

    async fn awaited(&self, call: &Call, ready: impl Fn(&Reply) -> bool) -> Result<Reply, String> {
        let begun = Instant::now();
        loop {
            let reply = self.make(call).await;
            if reply.as_ref().is_ok_and(&ready) || begun.elapsed() >= self.patience() {
                return reply;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Begins a call whose reply comes later.
    pub fn begin(&self, call: Call) -> Begun {
        let reply = tokio::spawn(call.clone().make(self.client.clone(), self.patience()));
        Begun { call, reply }
    }

    /// Its reply.
    pub async fn end(&mut self, begun: Begun, check: impl FnOnce(&Part<'_>)) -> io::Result<()> {
        let Begun { call, reply } = begun;
        let reply = reply.await.unwrap_or_else(|error| Err(error.to_string()));
        self.read(&call, reply, check).map(drop)
    }

    /// What the server says of itself, beside the trainer's calls; `None` where it does not.
    pub async fn look(&self, path: &str) -> Option<Value> {
        let reply = self.make(&Call::get(path, "")).await.ok()?;
        reply.status.is_success().then(|| reply.value()).flatten()
    }

    /// Tells of a call that is not made.
    pub fn skip(&mut self, call: &str, why: &str) -> io::Result<()> {
        match self.settings.json {
            true => self.line(&json!({ "call": call, "outcome": "not tried", "why": why })),
            false => writeln!(self.out, "{call}: not tried: {why}"),
        }
    }

    /// Makes a call that changes something, and keeps what puts that back: the trainer does so
    /// in its turn, or it is done at the end. `None`: it did not go well.
    pub async fn change(&mut self, call: Call, undo: Call) -> io::Result<Option<Undo>> {
        // Before it is made: who does not hear of a change may have made it.
        let undo = self.undo_by(undo);
        let reply = self.make(&call).await;
        let well = self.status(&call, &reply)?;
        Ok(self.kept(undo, well, &reply))
    }

    /// The same with a reply of JSON that `check` reads.
    pub async fn change_as(
        &mut self,
        call: Call,
        undo: Call,
        check: impl FnOnce(&Part<'_>),
    ) -> io::Result<Option<Undo>> {
        let undo = self.undo_by(undo);
        let reply = self.make(&call).await;
        let well = reply.as_ref().is_ok_and(|reply| reply.status == 200);
        let kept = self.kept(undo, well, &reply);
        self.read(&call, reply, check)?;
        Ok(kept)
    }

    /// Puts something back, as the trainer does it; says whether nothing of it is left.
    pub async fn undo(&mut self, undo: Option<Undo>) -> io::Result<bool> {
        let Some(Undo(index)) = undo else { return Ok(true) };
        let Some(call) = self.undo[index].clone() else { return Ok(true) };
        let well = self.tell(call).await?;
        if well {
            self.undo[index] = None;
        }
        Ok(well)
    }

    /// Ends a pause, over which a call was begun. A server that still rests answers nothing: it
    /// is told a second time.
    pub async fn go_on(
        &mut self,
        resume: Option<Undo>,
        waiting: Begun,
        check: impl FnOnce(&Part<'_>),
    ) -> io::Result<()> {
        if self.undo(resume).await? || self.undo(resume).await? {
            return self.end(waiting, check).await;
        }
        waiting.reply.abort();
        self.skip(&waiting.call.to_string(), "the server still rests")
    }

    fn undo_by(&mut self, call: Call) -> Undo {
        self.undo.push(Some(call));
        Undo(self.undo.len() - 1)
    }

    /// Nothing is put back where the server refused to change something.
    fn kept(&mut self, undo: Undo, well: bool, reply: &Result<Reply, String>) -> Option<Undo> {
        if reply.as_ref().is_ok_and(|reply| reply.status.is_client_error()) {
            self.undo[undo.0] = None;
        }
        well.then_some(undo)
    }

    /// Gives the weights the name again that they have now, at the end.
    pub async fn keep_version(&mut self) {
        let places = ["/weight_info", "/model_info"];
        for place in places {
            let told = self.look(place).await.unwrap_or_default();
            if let Some(version) = told["weight_version"].as_str() {
                let body = json!({ "new_version": version, "abort_all_requests": false });
                let what = "the weights have their name again";
                self.undo_by(Call::post("/update_weight_version", what, body));
                return;
            }
        }
    }

    /// Puts the server back as it was.
    pub async fn put_back(&mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        while let Some(call) = self.undo.pop() {
            if let Some(call) = call {
                // All are made, also where nobody reads of it.
                outcome = self.tell(call).await.map(drop).and(outcome);
            }
        }
        outcome
    }

    /// Tells what there is to tell at the end.
    pub fn close(&mut self, configuration: &[String]) -> io::Result<()> {
        if self.settings.json {
            let differing = self.differing;
            return self.line(&json!({ "configuration": configuration, "differing": differing }));
        }
        writeln!(self.out)?;
        configuration.iter().try_for_each(|line| writeln!(self.out, "{line}"))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.settings.timeout_seconds)
    }

    async fn make(&self, call: &Call) -> Result<Reply, String> {
        call.clone().make(self.client.clone(), self.patience()).await
    }

    fn read<T>(
        &mut self,
        call: &Call,
        reply: Result<Reply, String>,
        check: impl FnOnce(&Part<'_>) -> T,
    ) -> io::Result<Option<T>> {
        let noted = Noted::default();
        let value = received(call, &reply, &noted).and_then(|reply| written(reply, &noted));
        let read = value.as_ref().map(|value| check(&Part::whole(value, &noted)));
        self.told(call, noted.into_inner())?;
        Ok(read)
    }

    fn status(&mut self, call: &Call, reply: &Result<Reply, String>) -> io::Result<bool> {
        let noted = Noted::default();
        let well = received(call, reply, &noted).is_some();
        self.told(call, noted.into_inner())?;
        Ok(well)
    }

    fn told(&mut self, call: &Call, differences: Vec<Difference>) -> io::Result<()> {
        let well = differences.is_empty();
        self.differing += usize::from(!well);
        if self.settings.json {
            let outcome = if well { "ok" } else { "differs" };
            let each = differences
                .iter()
                .map(|it| json!({ "field": it.field, "expected": it.expected, "got": it.got }));
            return self.line(&json!({
                "call": call.to_string(), "for": call.what, "outcome": outcome,
                "differences": each.collect::<Vec<_>>(),
            }));
        }
        let mut words: Vec<String> =
            differences.iter().take(TOLD).map(ToString::to_string).collect();
        if differences.len() > TOLD {
            words.push(format!("and {} more", differences.len() - TOLD));
        }
        let words = if well { "ok".to_owned() } else { words.join("; ") };
        writeln!(self.out, "{call} ({}): {words}", call.what)
    }

    fn line(&mut self, line: &Value) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }
}

/// A reply that is well.
fn received<'r>(call: &Call, reply: &'r Result<Reply, String>, noted: &Noted) -> Option<&'r Reply> {
    let differs = |field: &str, expected: &str, got: String| {
        let (field, expected) = (field.to_owned(), expected.to_owned());
        noted.borrow_mut().push(Difference { field, expected, got });
        None
    };
    match reply {
        Err(why) => differs("reply", "one", why.clone()),
        Ok(reply) if reply.status == 200 || call.best_effort => Some(reply),
        Ok(reply) => {
            differs("status", "200", format!("{}: {}", reply.status.as_u16(), reply.shown()))
        }
    }
}

/// A reply as JSON.
fn written(reply: &Reply, noted: &Noted) -> Option<Value> {
    let value = reply.value();
    if value.is_none() || !reply.says_json {
        let (field, expected) = ("body".to_owned(), "application/json".to_owned());
        noted.borrow_mut().push(Difference { field, expected, got: reply.shown() });
    }
    value
}
