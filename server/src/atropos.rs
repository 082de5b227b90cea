//! The way of scored groups into Atropos: the server registers itself as one of the
//! environments of a trajectory API, hands over every group that it scored, and says when it
//! goes.

use crate::command::Failure;
use crate::command::client::Client;
use crate::config;
use crate::metrics::Metrics;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use trajectories::Trajectory;

/// Groups that wait to be handed over at most: while nobody takes them, newer ones are dropped.
const WAITING: usize = 256;
/// How long the API may take for an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// After how long what failed is tried again, and the trainer is looked for.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the API may take for what is left, and to hear that the server goes.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// What stands for a token that is not trained on.
const MASKED: i64 = -100;
/// What stands for the log-probability of such a one: no token has it.
const MASKED_LOGPROB: f32 = 1.0;

/// Where groups are left for the one who hands them over.
pub struct Atropos {
    groups: mpsc::Sender<Group>,
    envoy: Mutex<Option<Envoy>>,
}

/// Who hands groups over.
pub struct Envoy {
    client: Client,
    registration: Value,
    groups: mpsc::Receiver<Group>,
    /// Answers of a group, as it was registered.
    size: usize,
    /// That a group had another size was told.
    size_told: bool,
    /// A group is on its way.
    open: bool,
    metrics: Option<Arc<Metrics>>,
}

/// What the API says.
enum Answer {
    /// That all is well.
    Well(Value),
    /// That it does not take what was asked.
    Refused(String),
    /// That it does not know what is asked, as one that was started anew.
    Unknown(String),
    /// Nothing: it is not there, or has no time.
    Away(String),
}

/// Answers to one prompt, as the API takes them: whole sequences.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    tokens: Vec<Vec<u32>>,
    masks: Vec<Vec<i64>>,
    scores: Vec<f64>,
    inference_logprobs: Vec<Vec<f32>>,
    generation_params: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_id: Option<u64>,
}

impl Group {
    /// One more answer, and what it is worth.
    pub fn push(&mut self, answer: &Trajectory, score: f64) {
        let (prompt, own) = (&answer.prompt, &answer.answer);
        self.tokens.push([&prompt[..], own].concat());
        let masked = std::iter::repeat_n(MASKED, prompt.len());
        self.masks.push(masked.chain(own.iter().map(|token| i64::from(*token))).collect());
        let masked = std::iter::repeat_n(MASKED_LOGPROB, prompt.len());
        self.inference_logprobs.push(masked.chain(answer.logprobs.raw.iter().copied()).collect());
        self.scores.push(score);
        let sampling = &answer.sampling;
        self.generation_params = json!({
            "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": sampling.top_k, "min_p": sampling.min_p,
        });
    }
}

impl Atropos {
    /// As the settings say, if they name one, of a model that takes so many tokens.
    pub fn open(settings: &config::Atropos, context: u32) -> Result<Option<Self>, Failure> {
        let Some(url) = &settings.atropos_url else { return Ok(None) };
        let client = Client::of("--atropos-url", url, None)?;
        let registration = json!({
            "max_token_length": context,
            "desired_name": settings.atropos_name,
            "weight": settings.atropos_weight,
            "group_size": settings.atropos_group_size,
        });
        let (sender, groups) = mpsc::channel(WAITING);
        let envoy = Envoy {
            client,
            registration,
            groups,
            size: settings.atropos_group_size as usize,
            size_told: false,
            open: false,
            metrics: None,
        };
        Ok(Some(Self { groups: sender, envoy: Mutex::new(Some(envoy)) }))
    }

    /// Leaves a group.
    pub fn leave(&self, group: Group, metrics: &Metrics) {
        if self.groups.try_send(group).is_err() {
            metrics.atropos.dropped(1);
            tracing::warn!("{WAITING} groups wait for Atropos: one more is not handed over");
        }
    }

    /// Who hands them over, the first time that it is asked for.
    pub fn envoy(&self) -> Option<Envoy> {
        self.envoy.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Envoy {
    /// Registers, hands groups over, and takes its leave once it is told that no more come.
    pub async fn run(mut self, stop: watch::Receiver<bool>, metrics: Arc<Metrics>) {
        self.metrics = Some(metrics.clone());
        let mut late = stop.clone();
        tokio::select! {
            () = self.serve(stop) => {}
            () = async {
                stopped(&mut late).await;
                sleep(LEAVES_WITHIN).await;
            } => tracing::warn!("Atropos does not answer: it has not been left"),
        }
        let left = self.groups.len() + usize::from(self.open);
        if left > 0 {
            metrics.atropos.dropped(left as u64);
            tracing::warn!("{left} groups were not handed over to Atropos: the server ends");
        }
    }

    /// For as long as groups may come.
    async fn serve(&mut self, mut stop: watch::Receiver<bool>) {
        let mut id = tokio::select! {
            id = self.register() => id,
            () = stopped(&mut stop) => return,
        };
        loop {
            let group = tokio::select! {
                biased;
                group = self.groups.recv() => group,
                () = stopped(&mut stop) => None,
            };
            let Some(group) = group else { break };
            self.open = true;
            id = self.hand_over(id, group).await;
            self.open = false;
        }
        let body = json!({ "env_id": id });
        loop {
            match self.ask(Method::POST, "/disconnect-env", &body).await {
                Answer::Well(_) => return,
                Answer::Refused(why) | Answer::Unknown(why) => {
                    tracing::warn!("Atropos answers /disconnect-env by: {why}");
                    return;
                }
                Answer::Away(_) => sleep(AGAIN_AFTER).await,
            }
        }
    }

    /// The number that it has there: there is one once a trainer has begun.
    async fn register(&self) -> u64 {
        let mut told = false;
        loop {
            let why = match self.ask(Method::POST, "/register-env", &self.registration).await {
                Answer::Well(answer) => match answer["env_id"].as_u64() {
                    Some(id) => {
                        tracing::info!(env_id = id, "registered with Atropos");
                        return id;
                    }
                    None => answer.to_string(),
                },
                Answer::Refused(why) | Answer::Unknown(why) | Answer::Away(why) => why,
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!("Atropos answers /register-env by: {why}; it is asked again");
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    /// Hands a group over, and gives the number that it has there by then. One that is refused
    /// keeps no other waiting.
    async fn hand_over(&mut self, mut id: u64, group: Group) -> u64 {
        if group.scores.len() != self.size && !std::mem::replace(&mut self.size_told, true) {
            tracing::warn!(
                "a group of {} answers is handed over to Atropos, and --atropos-group-size says \
                 {}: the API waits until groups make so many together",
                group.scores.len(),
                self.size
            );
        }
        let (mut again, mut away) = (false, false);
        loop {
            let body = json!(Group { env_id: Some(id), ..group.clone() });
            match self.ask(Method::POST, "/scored_data", &body).await {
                Answer::Well(_) => {
                    self.count(|atropos| atropos.received());
                    return id;
                }
                // It may be the group that it breaks at: once more tells.
                Answer::Unknown(why) if !again => {
                    tracing::warn!("Atropos answers /scored_data by: {why}; it is asked once more");
                    again = true;
                    id = self.back(id).await;
                }
                Answer::Refused(why) | Answer::Unknown(why) => {
                    self.count(|atropos| atropos.refused());
                    tracing::warn!("Atropos refuses a group: {why}");
                    return id;
                }
                Answer::Away(why) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!("Atropos answers /scored_data by: {why}; it is asked again");
                    }
                    id = self.back(id).await;
                }
            }
        }
    }

    /// Waits until the API is there again: one that was started anew meanwhile is registered
    /// with, for it may take groups of whatever number and ask nobody for more. One that knows
    /// the number is not: it would count this environment twice.
    async fn back(&self, id: u64) -> u64 {
        loop {
            sleep(AGAIN_AFTER).await;
            match self.ask(Method::GET, "/status-env", &json!({ "env_id": id })).await {
                Answer::Away(_) => {}
                Answer::Well(_) => return id,
                Answer::Refused(_) | Answer::Unknown(_) => return self.register().await,
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Answer {
        let asked = self.client.answer(method, path, Some(body.clone()));
        match timeout(ANSWERS_WITHIN, asked).await {
            Err(_) => {
                Answer::Away(format!("no answer within {} seconds", ANSWERS_WITHIN.as_secs()))
            }
            Ok(Err(why)) => Answer::Away(why),
            Ok(Ok((status, body))) => Answer::read(status, &body),
        }
    }

    fn count(&self, count: impl FnOnce(&crate::metrics::Atropos)) {
        if let Some(metrics) = &self.metrics {
            count(&metrics.atropos);
        }
    }
}

impl Answer {
    fn read(status: StatusCode, body: &[u8]) -> Self {
        let words = || format!("{status}: {}", String::from_utf8_lossy(body));
        match status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => return Self::Away(words()),
            // It breaks at a number that it has not given.
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::INTERNAL_SERVER_ERROR => {
                return Self::Unknown(words());
            }
            status if !status.is_success() => return Self::Refused(words()),
            _ => {}
        }
        let Ok(told) = serde_json::from_slice::<Value>(body) else {
            return Self::Refused(words());
        };
        // What it says of an environment has no such field.
        match told["status"].as_str() {
            None | Some("success" | "received" | "buffered") => Self::Well(told),
            Some(_) => Self::Unknown(words()),
        }
    }
}

/// Waits until it is told to stop, or nobody is left who could.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
