//! The page at `/`: a playground and charts of the engine. Its files are in the binary, as
//! they are written; whatever a number on it says, it asked the server for.

/// A file of the page.
pub struct File {
    /// Where it is asked for.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub kind: &'static str,
    /// All of it.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of it.
pub const FILES: &[File] = &[
    File { path: "/", kind: HTML, text: include_str!("page.html") },
    File { path: "/page/page.css", kind: CSS, text: include_str!("page.css") },
    File { path: "/page/page.js", kind: SCRIPT, text: include_str!("page.js") },
    File { path: "/page/server.js", kind: SCRIPT, text: include_str!("server.js") },
    File { path: "/page/playground.js", kind: SCRIPT, text: include_str!("playground.js") },
    File { path: "/page/tokens.js", kind: SCRIPT, text: include_str!("tokens.js") },
    File { path: "/page/charts.js", kind: SCRIPT, text: include_str!("charts.js") },
];

/// Headers of every file: nothing comes from elsewhere, nothing is sent elsewhere, nobody
/// frames it, and a server that is newer than the browser's copy shows its own.
pub const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
];

/// The file at a path.
pub fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}
