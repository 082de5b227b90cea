//! Names, labels and buckets, which dashboards know.

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

/// Seconds of what people wait for.
const SECONDS: [f64; 23] = [
    0.02, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
];
/// Seconds of a swap.
const SWAPS: [f64; 9] = [0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.005, 0.02, 0.1];
/// Seconds between two tokens.
const GAPS: [f64; 20] = [
    0.001, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
const TOKENS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5];

/// Metrics in the making.
pub struct Names {
    /// All so far.
    pub registry: Registry,
    labels: [(String, String); 2],
}

impl Names {
    /// Of a model.
    pub fn new(model: &str) -> Self {
        let labels = [("model_name", model), ("engine", "0")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { registry: Registry::default(), labels }
    }

    /// By a name of vLLM's.
    pub fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.labelled(format!("vllm:{name}"), help, metric)
    }

    /// What does not change, by a name of vLLM's.
    pub fn fact(&mut self, name: &str, help: &str, facts: Vec<(String, String)>) {
        self.labels().register(format!("vllm:{name}"), help, Info::new(facts));
    }

    /// The same, by a name of our own.
    pub fn own_fact(&mut self, name: &str, help: &str, facts: Vec<(String, String)>) {
        self.labels().register(format!("pagewise:{name}"), help, Info::new(facts));
    }

    /// By a name of our own.
    pub fn own<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.labelled(format!("pagewise:{name}"), help, metric)
    }

    /// Of the server, not of a model.
    pub fn plain<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    fn labelled<M: Metric + Clone>(&mut self, name: String, help: &str, metric: M) -> M {
        self.labels().register(name, help, metric.clone());
        metric
    }

    fn labels(&mut self) -> &mut Registry {
        let labels = self.labels.clone().map(|(name, value)| (name.into(), value.into()));
        self.registry.sub_registry_with_labels(labels.into_iter())
    }
}

/// Of what people wait for.
pub fn by_seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Of what comes between tokens.
pub fn by_gaps() -> Histogram {
    Histogram::new(GAPS)
}

/// Of swaps of versions.
pub fn by_swaps() -> Histogram {
    Histogram::new(SWAPS)
}

/// Of lengths.
pub fn by_tokens() -> Histogram {
    Histogram::new(TOKENS)
}

/// Of a step's tokens.
pub fn by_steps() -> Histogram {
    Histogram::new([
        1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0,
    ])
}

/// Of answers to one prompt.
pub fn by_choices() -> Histogram {
    Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0])
}

/// Of versions that came while something was done.
pub fn by_versions() -> Histogram {
    Histogram::new([0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0])
}
