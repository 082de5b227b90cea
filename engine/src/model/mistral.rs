//! Mistral: a Llama whose tokens see a window of the latest positions.

use super::config::Config;
use super::layers::{Attention, Layer, Layers};
use super::llama;

/// The layers of a Mistral.
pub fn layers(config: &Config) -> Layers {
    let list = (0..config.layers).flat_map(|layer| {
        let window = config.windows[layer as usize];
        let attention = Attention { window, ..llama::attention(config, layer) };
        [Layer::Attention(attention), Layer::FeedForward(llama::feed_forward(config, layer))]
    });
    Layers { list: list.collect(), ..llama::layers(config) }
}
