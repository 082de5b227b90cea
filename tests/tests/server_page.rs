//! The page at `/`: its files as a browser asks for them, and what it polls.

use pagewise_tests::server::Server;
use pagewise_tests::server::wire::Wire;

/// What a page may weigh.
const BYTES_MAX: usize = 100_000;

/// The values of an attribute in HTML that is our own.
fn values<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let named = format!("{name}=\"");
    html.split(&named).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn a_page_with_all_its_files_is_open_to_everybody_and_light() {
    let server = Server::start(&["--api-key", "secret"]);
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let html = String::from_utf8(page.body.clone()).expect("text");
    assert!(html.starts_with("<!doctype html>"));
    let mut files: Vec<&str> = values(&html, "href");
    files.extend(values(&html, "src"));
    files.sort_unstable();
    files.dedup();
    files.retain(|file| !file.starts_with("data:"));
    assert!(files.iter().any(|file| file.ends_with(".css")), "{files:?}");
    let mut bytes = page.body.len();
    for file in &files {
        let response = server.get(&format!("/{file}"));
        let kind = response.header("content-type");
        let own = if file.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert!(response.status == 200 && kind.is_some_and(|kind| kind.starts_with(own)), "{file}");
        let policy = response.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        bytes += response.body.len();
    }
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    // What it shows is for those who have the key.
    assert_eq!(server.get("/debug/metrics").status, 401);
}

#[test]
fn a_page_is_asked_by_get_or_head_alone() {
    let server = Server::start(&[]);
    let url = format!("http://{}/", server.address);
    let head = ureq::head(&url).call().expect("an answer");
    assert_eq!(head.headers()["content-type"], "text/html; charset=utf-8");
    assert!(head.headers()["content-length"].to_str().expect("text").parse::<usize>().is_ok());
    for method in ["POST", "PUT", "DELETE"] {
        let mut wire = Wire::open(server.address);
        wire.send(
            format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        );
        let told = String::from_utf8_lossy(&wire.some(4096)).into_owned();
        assert!(told.starts_with("HTTP/1.1 405 "), "{told}");
        assert!(told.to_lowercase().contains("\r\nallow: get\r\n"), "{told}");
    }
    assert_eq!(server.get("/page/none.js").status, 404);
}
