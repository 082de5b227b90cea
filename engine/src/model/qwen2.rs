//! Qwen 2 and 2.5: a Llama whose queries, keys and values add a bias, and whose later
//! layers may have a window.

use super::config::Config;
use super::layers::{Attention, Layer, Layers, Product};
use super::llama;

/// The layers of a Qwen 2.
pub fn layers(config: &Config) -> Layers {
    let list = (0..config.layers).flat_map(|layer| {
        let plain = llama::attention(config, layer);
        let attention = Attention {
            qkv: Product { bias: true, ..plain.qkv },
            out: Product { bias: false, ..plain.out },
            window: config.windows[layer as usize],
            ..plain
        };
        [Layer::Attention(attention), Layer::FeedForward(llama::feed_forward(config, layer))]
    });
    Layers { list: list.collect(), ..llama::layers(config) }
}
