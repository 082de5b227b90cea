//! Qwen 3: a Llama that norms each head of its queries and keys before they turn, and
//! whose heads need not be as wide together as its hidden states.

use super::config::Config;
use super::layers::{Attention, Layer, Layers};
use super::llama;

/// The layers of a Qwen 3.
pub fn layers(config: &Config) -> Layers {
    let list = (0..config.layers).flat_map(|layer| {
        let norm = |of: &str| format!("model.layers.{layer}.self_attn.{of}_norm");
        let attention = Attention {
            head_norms: Some([norm("q"), norm("k")]),
            window: config.windows[layer as usize],
            ..llama::attention(config, layer)
        };
        [Layer::Attention(attention), Layer::FeedForward(llama::feed_forward(config, layer))]
    });
    Layers { list: list.collect(), ..llama::layers(config) }
}
