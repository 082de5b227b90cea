//! Shares of a peak as horizontal bars, in SVG that is plain text.

use std::fmt::Write as _;

/// One bar.
pub struct Bar {
    /// What was run, at the left.
    pub label: String,
    /// Its share of the peak.
    pub share: f64,
    /// The rate, at the right.
    pub figure: String,
    /// The least it must be, where something asks for it.
    pub bar: Option<f64>,
    /// Whether it is not ours.
    pub peer: bool,
}

/// Pixels of a line, of the labels, of the whole peak.
const LINE: usize = 22;
const LABELS: usize = 300;
const PEAK: f64 = 360.0;
const WIDTH: usize = 840;
const TOP: usize = 46;
/// Shares that have a line of their own in the background.
const GRID: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// What lies in a cache may pass memory's peak: bars are cut here.
const SHARE_MAX: f64 = 1.15;

/// Colours that stand on a light page and on a dark one; the page's own ground shows.
const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.dim{fill:#6e7781}
.grid{stroke:#d0d7de}.ours{fill:#1a7f5a}.peer{fill:#8c959f}.bar{stroke:#cf222e;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#8d96a0}.grid{stroke:#3d444d}
.ours{fill:#3fb68b}.peer{fill:#6e7681}.bar{stroke:#ff7b72}}";

/// The bars below each other.
pub fn shares(title: &str, bars: &[Bar]) -> String {
    let height = TOP + bars.len() * LINE + 10;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<text class=\"title\" x=\"8\" y=\"18\">{title}</text>\n",
        title = escaped(title)
    );
    for share in GRID {
        let (x, bottom) = (at(share), height - 8);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"dim\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{:.0} %</text>",
            TOP - 8,
            share * 100.0
        );
    }
    for (line, bar) in bars.iter().enumerate() {
        one(&mut svg, TOP + line * LINE, bar);
    }
    svg + "</svg>\n"
}

fn one(svg: &mut String, top: usize, bar: &Bar) {
    let (text, class) = (top + 15, if bar.peer { "peer" } else { "ours" });
    let start = at(0.0);
    let end = at(bar.share);
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{text}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{start:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" rx=\"2\"/>\
         <text class=\"dim\" x=\"{:.1}\" y=\"{text}\">{:.0} %, {}</text>",
        start - 8.0,
        escaped(&bar.label),
        top + 3,
        end - start,
        LINE - 6,
        end.max(bar.bar.map_or(0.0, at)) + 6.0,
        bar.share * 100.0,
        escaped(&bar.figure)
    );
    if let Some(least) = bar.bar {
        let (x, bottom) = (at(least), top + LINE - 2);
        let _ = writeln!(
            svg,
            "<line class=\"bar\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>",
            top + 2
        );
    }
}

fn at(share: f64) -> f64 {
    LABELS as f64 + share.clamp(0.0, SHARE_MAX) * PEAK
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
