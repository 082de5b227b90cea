//! How metrics are written: as OpenMetrics, or in Prometheus's text format from before it,
//! which is what most that read `/metrics` without saying so can read.

/// A form of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for: the text format, unless it names the other.
    pub fn asked(accept: &str) -> Self {
        let named = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or("");
            let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0"));
            kind.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        });
        if named { Self::OpenMetrics } else { Self::Text }
    }

    /// As `Content-Type` names it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// In this form, from OpenMetrics.
    pub fn of(self, metrics: String) -> String {
        match self {
            Self::Text => text(&metrics),
            Self::OpenMetrics => metrics,
        }
    }
}

/// OpenMetrics in the text format. Samples are the same in both; but there a family has the
/// name of its samples, which OpenMetrics puts an ending to, and nothing marks the end.
fn text(metrics: &str) -> String {
    let mut text = String::with_capacity(metrics.len());
    // `# HELP name words` comes before `# TYPE name kind`, which says what its name becomes.
    let mut help = "";
    for line in metrics.lines() {
        if let Some(words) = line.strip_prefix("# HELP ") {
            help = words.split_once(' ').map_or("", |(_, words)| words);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' '))
        {
            let (ending, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                same => ("", same),
            };
            text += &format!("# HELP {name}{ending} {help}\n# TYPE {name}{ending} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Format;

    #[test]
    fn who_does_not_ask_for_openmetrics_has_the_text_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text; q=0, text/plain", Format::Text),
            ("text/plain, Application/OpenMetrics-Text; version=1.0.0", Format::OpenMetrics),
            (prometheus, Format::OpenMetrics),
        ] {
            assert_eq!(Format::asked(accept), format, "{accept}");
        }
    }

    #[test]
    fn a_family_has_the_name_of_its_samples() {
        let metrics = "# HELP tokens Tokens of \"prompts\".\n# TYPE tokens counter\n\
                       # UNIT tokens seconds\ntokens_total{a=\"# b\"} 7\n\
                       # HELP cache Pages.\n# TYPE cache info\ncache_info{size=\"3\"} 1\n\
                       # HELP held Held.\n# TYPE held gauge\nheld 0.5\n# EOF\n";
        let text = "# HELP tokens_total Tokens of \"prompts\".\n# TYPE tokens_total counter\n\
                    tokens_total{a=\"# b\"} 7\n\
                    # HELP cache_info Pages.\n# TYPE cache_info gauge\ncache_info{size=\"3\"} 1\n\
                    # HELP held Held.\n# TYPE held gauge\nheld 0.5\n";
        assert_eq!(Format::Text.of(metrics.to_owned()), text);
        assert_eq!(Format::OpenMetrics.of(metrics.to_owned()), metrics);
    }
}
