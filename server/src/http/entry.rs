//! The line of a request in the log, which is written when it has ended.

use crate::openai::answer::Piece;
use hyper::{Method, StatusCode};
use std::time::Instant;

/// Paths that are asked over and over, by the page and by those who watch servers: where all
/// is well, their lines are for those who look closely.
const WATCHED: &[&str] = &["/health", "/ready", "/metrics", "/debug/metrics"];

/// What is known of a request from its beginning.
#[derive(Clone)]
pub struct Entry {
    /// Its name.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// When it came.
    pub begun: Instant,
}

/// Marks a response whose line is written when its stream ends.
#[derive(Clone)]
pub struct Streamed;

/// What came of a request's answers.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// Their tokens.
    tokens: usize,
    /// Why they ended, each reason once.
    ends: Vec<&'static str>,
}

impl Course {
    /// With what came of one of them.
    pub fn take(&mut self, piece: &Piece) {
        self.tokens += piece.tokens.len();
        self.ends_by(piece.end.as_ref().map(|end| end.reason));
    }

    /// It went no further.
    pub fn broken(mut self, why: &'static str) -> Self {
        self.ends_by(Some(why));
        self
    }

    fn ends_by(&mut self, why: Option<&'static str>) {
        self.ends.extend(why.filter(|why| !self.ends.contains(why)));
    }
}

impl Entry {
    /// Writes the line.
    pub fn write(&self, status: StatusCode, course: Option<&Course>) {
        let Self { id: request, method, path, begun } = self;
        let quiet = WATCHED.contains(&path.as_str()) && status.is_success();
        let (status, seconds) = (status.as_u16(), begun.elapsed().as_secs_f64());
        match course {
            None if quiet => {
                tracing::debug!(%request, %method, %path, status, seconds, "answered");
            }
            None => tracing::info!(%request, %method, %path, status, seconds, "answered"),
            Some(Course { tokens, ends }) => {
                let finish = ends.join(",");
                tracing::info!(
                    %request, %method, %path, status, seconds, tokens, finish, "answered"
                );
            }
        }
    }
}
