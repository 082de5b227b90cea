//! `/generate`: requests to the engine, and what comes of them, gathered or piece by piece.

use super::ask::{self, Ask, Body, Native};
use super::names::Taken;
use super::reply::{Around, Reply, Told};
use crate::http::generate::{COMES_BACK_TIMES, event, json, news, streamed};
use crate::http::{self, Answer, Asking, Course, Server, route};
use crate::openai::Refusal;
use crate::openai::answer::{Answers, Computed};
use crate::rollouts::Collector;
use crate::runtime::{News, PAUSED, Pause, Ticket};
use bytes::Bytes;
use engine::request::{Event, Finish, Request};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::Sender;

/// How often who waits before the engine's door looks whether the server is closing.
const LOOK: Duration = Duration::from_millis(200);

/// Answers a body.
pub fn generate(server: Arc<Server>, asking: Asking) -> Answer {
    Box::pin(async move {
        let Asking { call, context, begun, entry } = asking;
        let reader = server.clone();
        let read = move |body: &[u8]| ask::read(body, context, &reader.kept);
        let native = match route::read(call.body, read).await? {
            Body::Native(native) => *native,
            Body::Prompt(surface) => {
                return http::generate::generate(server, surface, begun, entry).await;
            }
        };
        let names = native.asks.iter().map(|ask| ask.name.clone());
        let taken = server.kept.names.take(names)?;
        if !native.stream {
            let mut making = Making::begin(&server, native, &taken, entry.begun).await?;
            while !making.ended() {
                making.next(&server).await?;
            }
            let mut response = json(making.whole(&server).await?);
            response.extensions_mut().insert(making.course);
            return Ok(response);
        }
        let permit = server.stream()?;
        let making = Making::begin(&server, native, &taken, entry.begun).await?;
        let held = (permit, begun, taken);
        Ok(streamed(entry, held, |to| stream(server, making, to)))
    })
}

/// Answers in the making.
struct Making {
    native: Native,
    /// Of each prompt.
    answers: Vec<Answers>,
    told: Vec<Vec<Told>>,
    /// What is made of those that the engine has besides, if anything is.
    collectors: Vec<Option<Collector>>,
    /// Which prompts the engine has, in its order.
    sent: Vec<usize>,
    ticket: Option<Ticket>,
    begun: Instant,
    course: Course,
}

impl Making {
    /// Hands all prompts to the engine, as soon as it takes some; but for those that are
    /// ended while they wait for that.
    async fn begin(
        server: &Server,
        native: Native,
        taken: &Taken,
        begun: Instant,
    ) -> Result<Self, Refusal> {
        let count = native.asks.len();
        let told = |ask: &Ask| (0..ask.params.asked.choices as usize).map(Told::new).collect();
        let mut making = Self {
            answers: native.asks.iter().map(|ask| Answers::new(&ask.params.asked, 1)).collect(),
            told: native.asks.iter().map(told).collect(),
            collectors: Vec::new(),
            sent: Vec::new(),
            ticket: None,
            begun,
            course: Course::default(),
            native,
        };
        let runtime = &server.runtime;
        let mut tries = 0..COMES_BACK_TIMES;
        loop {
            let ended: Vec<bool> = (0..count).map(|at| taken.ended(at)).collect();
            if ended.iter().all(|ended| *ended) {
                break;
            }
            if runtime.pause() == Some(Pause::Refuse) {
                server.stopping()?;
                tokio::select! {
                    () = runtime.admits() => {}
                    () = taken.change(&ended) => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                continue;
            }
            let sent: Vec<usize> = (0..count).filter(|at| !ended[*at]).collect();
            for at in &sent {
                if let Some(known) = &making.native.asks[*at].adapter {
                    server.served.adapters.ready(runtime, known).await?;
                }
            }
            let asks = sent.iter().map(|at| &making.native.asks[*at]);
            let (names, requests): (_, Vec<Request>) =
                asks.map(|ask| (ask.name.clone(), ask.request())).unzip();
            making.collectors = making.collectors(&sent, &requests, server)?;
            match runtime.submit_named(names, requests, making.native.stream).await {
                Ok(ticket) => {
                    (making.sent, making.ticket) = (sent, Some(ticket));
                    break;
                }
                Err(refusal) if refusal.code == Some(PAUSED) => {}
                // Others have needed its slot meanwhile.
                Err(refusal) if refusal.is_of("adapter") && tries.next().is_some() => {}
                Err(refusal) => return Err(super::params::renamed(refusal, "sampling_params")),
            }
        }
        // Some may have been ended while they were handed over.
        for at in (0..count).filter(|at| taken.ended(*at)) {
            if making.sent.contains(&at) {
                let name = making.native.asks[at].name.clone();
                runtime.abort(move |other| other == &*name).await?;
            } else {
                making.aborted(at);
            }
        }
        Ok(making)
    }

    /// What is made of the answers to these besides, each with its request.
    fn collectors(
        &self,
        sent: &[usize],
        requests: &[Request],
        server: &Server,
    ) -> Result<Vec<Option<Collector>>, Refusal> {
        let (served, metrics) = (&server.served, &server.metrics);
        let each = sent.iter().zip(requests).map(|(at, request)| {
            let ask = &self.native.asks[*at];
            let request = std::slice::from_ref(request);
            let collector = Collector::new(&ask.params.asked, request, served, metrics)?;
            Ok(collector.map(|collector| match &ask.adapter {
                Some(known) => collector.of_model(&known.name),
                None => collector,
            }))
        });
        each.collect()
    }

    /// A prompt that the engine never had.
    fn aborted(&mut self, at: usize) {
        let seconds = self.begun.elapsed().as_secs_f64();
        for told in &mut self.told[at] {
            (told.why, told.seconds) = (Some(Finish::Aborted), seconds);
        }
        self.end(at);
    }

    fn ended(&self) -> bool {
        self.told.iter().flatten().all(|told| told.why.is_some())
    }

    /// Waits for what happens next; says of which answers.
    async fn next(&mut self, server: &Server) -> Result<Vec<(usize, usize)>, Refusal> {
        let stopped = || Refusal::internal("the engine has stopped");
        let News { at, events } = news(self.ticket.as_mut().ok_or_else(stopped)?).await?;
        let (place, at) = (at, self.sent[at]);
        for event in &events {
            if let Event::End { choice, why, guessed, held, .. } = event {
                let told = &mut self.told[at][*choice as usize];
                (told.why, told.guessed) = (Some(why.clone()), (*guessed, *held));
                told.seconds = self.begun.elapsed().as_secs_f64();
            }
        }
        let pieces = self.answers[at].take(0, events, &server.served.text.tokenizer)?;
        if let Some(collector) = &mut self.collectors[place] {
            collector.take(0, &pieces, &mut self.answers[at]).await;
        }
        let mut changed = Vec::with_capacity(pieces.len());
        for piece in pieces {
            self.course.take(&piece);
            changed.push((at, piece.index));
            self.told[at][piece.index].join(piece);
        }
        if self.told[at].iter().all(|told| told.why.is_some()) {
            self.end(at);
        }
        Ok(changed)
    }

    /// A prompt's answers are whole: so is its place in a session.
    fn end(&mut self, at: usize) {
        let ask = &mut self.native.asks[at];
        let (prompt, told) = (ask.prompt.tokens.clone(), &self.told[at][0]);
        let answer = || told.piece.tokens.iter().map(|(scored, _)| scored.token).collect();
        if let Some(turn) = ask.turn.take() {
            turn.end(prompt, answer());
        }
    }

    /// All that came, as JSON.
    async fn whole(&self, server: &Server) -> Result<Vec<u8>, Refusal> {
        let current = server.runtime.label(None).await?.unwrap_or_default();
        let all = (0..self.told.len())
            .flat_map(|at| (0..self.told[at].len()).map(move |choice| (at, choice)));
        let each =
            all.map(|(at, choice)| self.written(server, (at, choice), current.clone(), false));
        let each: Vec<Vec<u8>> = each.collect();
        Ok(match self.native.listed {
            true => [b"[", &*each.join(&b","[..]), b"]"].concat(),
            false => each.concat(),
        })
    }

    /// One answer so far, as JSON.
    fn written(
        &self,
        server: &Server,
        (at, choice): (usize, usize),
        current: Arc<str>,
        streamed: bool,
    ) -> Vec<u8> {
        let ask = &self.native.asks[at];
        let choices = self.told[at].len();
        let id = match choices {
            1 => ask.name.to_string(),
            _ => format!("{}_{choice}", ask.name),
        };
        let computed = self.answers[at].computed[0].as_ref();
        let around = Around {
            ask,
            show_prompt: self.native.show_prompt,
            token_texts: self.native.token_texts,
            id,
            prompt: computed
                .map_or((0, &[]), |Computed { cached, logprobs, .. }| (*cached, logprobs)),
            current,
            labels: &server.served.labels,
            tokenizer: &server.served.text.tokenizer,
            index: (streamed && self.native.listed).then_some(at * choices + choice),
            collected: self.answers[at].rollout.each[choice].clone(),
        };
        let reply = Reply::of(&self.told[at][choice], &around);
        serde_json::to_vec(&reply).expect("its maps have strings as keys")
    }
}

/// Sends all so far with each piece; what came of it.
async fn stream(server: Arc<Server>, mut making: Making, to: Sender<Bytes>) -> Course {
    let label = server.runtime.label(None).await.ok().flatten();
    let current = label.unwrap_or_default();
    // Those that ended before they began.
    let ended = (0..making.told.len()).filter(|at| !making.sent.contains(at));
    let mut changed: Vec<(usize, usize)> =
        ended.flat_map(|at| (0..making.told[at].len()).map(move |choice| (at, choice))).collect();
    let mut sent: Vec<Vec<usize>> = making.told.iter().map(|told| vec![0; told.len()]).collect();
    loop {
        for (at, choice) in changed {
            let (told, sent) = (&making.told[at][choice], &mut sent[at][choice]);
            let new = told.piece.tokens.len() - *sent;
            if told.why.is_none() && new < making.native.asks[at].params.interval {
                continue;
            }
            *sent += new;
            let written = making.written(&server, (at, choice), current.clone(), true);
            if to.send(event(&written)).await.is_err() {
                return making.course.broken("client gone");
            }
        }
        if making.ended() {
            let _ = to.send(event(b"[DONE]")).await;
            return making.course;
        }
        let next = tokio::select! {
            next = making.next(&server) => next,
            // The client has gone: the ticket goes, too.
            () = to.closed() => return making.course.broken("client gone"),
        };
        changed = match next {
            Ok(changed) => changed,
            Err(refusal) => {
                let _ = to.send(event(failed(&refusal).to_string().as_bytes())).await;
                let _ = to.send(event(b"[DONE]")).await;
                return making.course.broken(refusal.code.unwrap_or("error"));
            }
        };
    }
}

/// A refusal in a stream.
fn failed(refusal: &Refusal) -> serde_json::Value {
    let mut body = refusal.body();
    json!({ "error": {
        "message": refusal.message,
        "type": body["error"]["type"].take(),
        "code": refusal.status.as_u16(),
        "retryable": refusal.retry_after.is_some(),
    }})
}
