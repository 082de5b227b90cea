//! Answers as the engine makes them: gathered, or sent piece by piece.

use super::body::Reply;
use super::entry::{self, Entry, Streamed};
use super::{Begun, Server, closed};
use crate::adapters::Known;
use crate::openai::answer::{Answers, Piece};
use crate::openai::embeddings::Embeddings;
use crate::openai::{Refusal, Surface};
use crate::rollouts::{Collector, References};
use crate::runtime::{News, Ticket, unanswered};
use bytes::Bytes;
use engine::request::{Event, Finish, Request};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::sync::Arc;
use tokio::sync::mpsc::{Sender, channel};

/// Pieces that wait to be sent; more wait as events.
const PIECES_WAITING: usize = 16;
/// Times that an adapter is brought back for one request, while others take its slot.
pub const COMES_BACK_TIMES: u32 = 8;

/// Answers of a surface.
pub async fn generate(
    server: Arc<Server>,
    surface: Arc<dyn Surface>,
    begun: Begun,
    entry: Entry,
) -> Result<Response<Reply>, Refusal> {
    let asked = surface.asked();
    if let Some(reply) = surface.ready() {
        return Ok(told_again(reply, asked.stream.is_some()));
    }
    let requests = surface.requests();
    let course = Course::new(surface.as_ref(), &requests, &server).await?;
    let name = asked.request_id.as_deref().unwrap_or(&entry.id).to_owned();
    if asked.stream.is_none() {
        let ticket = submit(&server, &name, asked.adapter.as_ref(), requests, false).await?;
        return gathered(&server, surface.as_ref(), course, ticket).await;
    }
    let permit = server.stream()?;
    let ticket = submit(&server, &name, asked.adapter.as_ref(), requests, true).await?;
    let stream = |sender| stream(server, surface, course, ticket, sender);
    Ok(streamed(entry, (permit, begun), stream))
}

/// A response of events as they are sent, which holds something until its end.
pub fn streamed<F>(
    entry: Entry,
    held: impl Send + 'static,
    send: impl FnOnce(Sender<Bytes>) -> F,
) -> Response<Reply>
where
    F: Future<Output = entry::Course> + Send + 'static,
{
    let (sender, receiver) = channel(PIECES_WAITING);
    let sent = send(sender);
    tokio::spawn(async move {
        let course = sent.await;
        entry.write(StatusCode::OK, Some(&course));
        drop(held);
    });
    let mut response = Response::new(Reply::Stream(receiver));
    response.extensions_mut().insert(Streamed);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What is known already, whole or as a stream of one piece.
fn told_again(reply: Vec<u8>, streamed: bool) -> Response<Reply> {
    if !streamed {
        return json(reply);
    }
    let all = [event(&reply), event(b"[DONE]")].concat();
    let mut response = Response::new(Reply::whole(all));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Hands requests to the engine, with their adapter on the device.
pub async fn submit(
    server: &Server,
    name: &str,
    adapter: Option<&Known>,
    requests: Vec<Request>,
    streamed: bool,
) -> Result<Ticket, Refusal> {
    // An episode has its adapter's version, whatever became of the name.
    let goes_on = requests.iter().all(|request| request.episode.is_some());
    let Some(known) = adapter.filter(|_| !goes_on) else {
        return server.runtime.submit(name, requests, streamed).await;
    };
    let mut tries = 0..COMES_BACK_TIMES;
    loop {
        server.served.adapters.ready(&server.runtime, known).await?;
        match server.runtime.submit(name, requests.clone(), streamed).await {
            // Others have needed its slot meanwhile.
            Err(refusal) if refusal.is_of("adapter") && tries.next().is_some() => {}
            outcome => return outcome,
        }
    }
}

/// A response of JSON.
pub fn json(body: Vec<u8>) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn gathered(
    server: &Server,
    surface: &dyn Surface,
    mut course: Course,
    mut ticket: Ticket,
) -> Result<Response<Reply>, Refusal> {
    let mut log = entry::Course::default();
    let mut whole: Vec<Piece> = (0..course.answers.count()).map(Piece::empty).collect();
    while !course.answers.ended() {
        for piece in course.next(server, &mut ticket).await? {
            log.take(&piece);
            whole[piece.index].join(piece);
        }
    }
    if let Some(collector) = &course.collector {
        whole.retain(|piece| collector.returns(piece.index));
    }
    let mut response = json(surface.whole(whole, &course.answers));
    response.extensions_mut().insert(log);
    Ok(response)
}

/// Answers while they come.
pub struct Course {
    /// As far as they have come.
    pub answers: Answers,
    /// What is made of them besides, if anything is.
    collector: Option<Collector>,
    references: Option<References>,
}

impl Course {
    /// Of what a surface asks.
    pub async fn new(
        surface: &dyn Surface,
        requests: &[Request],
        server: &Server,
    ) -> Result<Self, Refusal> {
        let asked = surface.asked();
        let mut collector = Collector::new(asked, requests, &server.served, &server.metrics)?;
        let episode = requests.iter().find_map(|request| request.episode);
        if let (Some(collector), Some(number)) = (&mut collector, episode) {
            // Nothing is appended to it meanwhile: this is its only step.
            let standing = server.runtime.with(move |engine| engine.episode(number)).await?;
            standing.into_iter().for_each(|standing| collector.go_on(standing));
        }
        Ok(Self {
            answers: Answers::new(asked, requests.len()),
            collector,
            references: References::new(asked, requests),
        })
    }

    /// What came next. Answers that end with it are in the store by then, if they are to be.
    pub async fn next(
        &mut self,
        server: &Server,
        ticket: &mut Ticket,
    ) -> Result<Vec<Piece>, Refusal> {
        let News { at, events } = news(ticket).await?;
        let pieces = self.answers.take(at, events, &server.served.text.tokenizer)?;
        if let Some(collector) = &mut self.collector {
            collector.take(at, &pieces, &mut self.answers).await;
            ticket.end(collector.over(at, &mut self.answers));
        }
        if let Some(references) = &mut self.references {
            references.take(&pieces, &mut self.answers, server).await?;
        }
        Ok(pieces)
    }
}

/// What happened next. Nobody gives up a request whose ticket is held but a server that
/// closes.
pub async fn news(ticket: &mut Ticket) -> Result<News, Refusal> {
    let stopped = || Refusal::internal("the engine has stopped");
    let news = ticket.next().await.ok_or_else(stopped)?;
    let given_up = |event: &Event| matches!(event, Event::End { why: Finish::Cancelled, .. });
    if news.events.iter().any(given_up) { Err(closed::stopping()) } else { Ok(news) }
}

/// Sends answers as they come; what came of them.
async fn stream(
    server: Arc<Server>,
    surface: Arc<dyn Surface>,
    mut course: Course,
    mut ticket: Ticket,
    to: Sender<Bytes>,
) -> entry::Course {
    let mut log = entry::Course::default();
    for piece in surface.beginning() {
        if to.send(event(&piece)).await.is_err() {
            return log.broken("client gone");
        }
    }
    let mut begun = vec![false; course.answers.count()];
    while !course.answers.ended() {
        let pieces = tokio::select! {
            pieces = course.next(&server, &mut ticket) => pieces,
            // The client has gone: the ticket goes, too.
            () = to.closed() => return log.broken("client gone"),
        };
        let sent = match pieces {
            Ok(pieces) => {
                pieces.iter().for_each(|piece| log.take(piece));
                send(surface.as_ref(), pieces, &mut begun, &course.answers, &to).await
            }
            Err(refusal) => {
                let _ = to.send(event(refusal.body().to_string().as_bytes())).await;
                let _ = to.send(event(b"[DONE]")).await;
                return log.broken(refusal.code.unwrap_or("error"));
            }
        };
        if !sent {
            return log.broken("client gone");
        }
    }
    if surface.asked().stream.is_some_and(|stream| stream.usage) {
        let _ = to.send(event(&surface.last(&course.answers))).await;
    }
    let _ = to.send(event(b"[DONE]")).await;
    log
}

/// Whether the client is still there.
async fn send(
    surface: &dyn Surface,
    pieces: Vec<Piece>,
    begun: &mut [bool],
    answers: &Answers,
    to: &Sender<Bytes>,
) -> bool {
    for piece in pieces {
        // Half a character says nothing, unless its token is to be told.
        let silent = piece.text.is_empty() && piece.calls.is_empty() && piece.end.is_none();
        if silent && (piece.tokens.is_empty() || !surface.tells_tokens()) {
            continue;
        }
        let first = !std::mem::replace(&mut begun[piece.index], true);
        if to.send(event(&surface.chunk(piece, first, answers))).await.is_err() {
            return false;
        }
    }
    true
}

/// One server-sent event.
pub fn event(data: &[u8]) -> Bytes {
    [b"data: ", data, b"\n\n"].concat().into()
}

/// The vectors of texts.
pub async fn embed(server: &Server, asked: &Embeddings) -> Result<Vec<u8>, Refusal> {
    embedded(server, asked.requests()).await.map(|vectors| asked.response(vectors))
}

/// The vector of each of some requests.
pub async fn embedded(server: &Server, requests: Vec<Request>) -> Result<Vec<Vec<f32>>, Refusal> {
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; requests.len()];
    let mut ticket = server.runtime.submit("", requests, false).await?;
    while vectors.iter().any(Option::is_none) {
        let News { at, events } = news(&mut ticket).await?;
        for event in events {
            match event {
                Event::Embedding { values, .. } => vectors[at] = Some(values),
                Event::End { why, .. } => return Err(unanswered(why)),
                Event::Admitted { .. } | Event::Prompt { .. } | Event::Token { .. } => {}
            }
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}
