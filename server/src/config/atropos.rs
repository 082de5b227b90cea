//! Settings of the way into Atropos.

use clap::Args;

/// Scored groups that a trainer behind Atropos takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Atropos")]
pub struct Atropos {
    /// The trajectory API with which the server registers as an environment; it is handed
    /// every group that is scored.
    #[arg(long, value_name = "URL")]
    pub atropos_url: Option<String>,
    /// What the environment would like to be called.
    #[arg(long, value_name = "NAME", default_value = "pagewise")]
    pub atropos_name: String,
    /// Answers of a group, which the API puts together from others of another size.
    #[arg(long, value_name = "COUNT", default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(1..=128))]
    pub atropos_group_size: u32,
    /// How much of a batch it would have, beside other environments.
    #[arg(long, value_name = "WEIGHT", default_value_t = 1.0, value_parser = weight)]
    pub atropos_weight: f64,
}

fn weight(text: &str) -> Result<f64, String> {
    let weight: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    if weight.is_finite() && weight > 0.0 { Ok(weight) } else { Err("a number above 0".to_owned()) }
}
