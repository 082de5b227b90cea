//! A model that is downloaded: from a hub of ours, which answers as the real one does.

use pagewise_tests::server::{checkpoint, command};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

/// What was asked for, and with which token.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A hub with one model, `some/tiny`; gone with the process.
fn hub(folder: PathBuf) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Asked::default();
    let told = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.expect("a connection"), &folder, &told);
        }
    });
    (url, asked)
}

fn answer(mut stream: TcpStream, folder: &Path, asked: &Asked) {
    let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).expect("a path").to_owned();
    let (mut range, mut token) = (None, None);
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_lowercase().as_str() {
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            "authorization" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    asked.lock().expect("nobody panicked").push((path.clone(), token));
    let body = if path.starts_with("/api/models/some/tiny") {
        let names = std::fs::read_dir(folder).expect("a folder");
        let names = names.map(|file| file.expect("a file").file_name().into_string());
        let files: Vec<_> =
            names.map(|name| format!(r#"{{"rfilename": {:?}}}"#, name.expect("text"))).collect();
        format!(r#"{{"sha": "abc", "siblings": [{}]}}"#, files.join(",")).into_bytes()
    } else {
        let file = path.strip_prefix("/some/tiny/resolve/main/").unwrap_or("nothing");
        std::fs::read(folder.join(file)).unwrap_or_default()
    };
    let whole = body.len();
    let (from, to) = match range.as_deref().and_then(|range| range.split_once('-')) {
        Some((from, to)) => {
            let to = to.parse().map_or(whole, |to: usize| to + 1);
            (from.parse().expect("a number"), to.min(whole))
        }
        None => (0, whole),
    };
    let head = if whole == 0 {
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
    } else {
        format!(
            "HTTP/1.1 206 Partial Content\r\nx-repo-commit: abc\r\netag: \"{}\"\r\n\
             content-range: bytes {from}-{}/{whole}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            path.replace('/', "-"),
            to - 1,
            to - from
        )
    };
    // A client that has seen enough may leave.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[from..to]));
}

fn complete(home: &Path, hub: &str) -> Output {
    let mut command = command();
    command.args(["complete", "Hello", "--model-path", "some/tiny", "--threads", "1"]);
    command.args(["--max-tokens", "4", "--temperature", "0"]);
    command.env("HF_HOME", home).env("HF_ENDPOINT", hub).env("HF_TOKEN", "hf_secret");
    command.output().expect("it runs")
}

#[test]
fn a_name_of_the_hub_is_downloaded_once_with_the_token_and_no_second_form_of_it() {
    let folder = checkpoint::write();
    std::fs::write(folder.join("consolidated.safetensors"), "much").expect("a file");
    let home = folder.with_file_name("home");
    let (url, asked) = hub(folder.clone());
    let first = complete(&home, &url);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let seen = std::mem::take(&mut *asked.lock().expect("nobody panicked"));
    let was = |file: &str| seen.iter().any(|(path, _)| path.ends_with(file));
    assert!(was("/config.json") && was("/tokenizer.json") && was("/model.safetensors"), "{seen:?}");
    assert!(!was("consolidated.safetensors"), "{seen:?}");
    assert!(seen.iter().all(|(_, token)| token.as_deref() == Some("Bearer hf_secret")));
    // From the copy, without a word to the hub.
    let second = complete(&home, &url);
    assert_eq!(first.stdout, second.stdout);
    assert!(asked.lock().expect("nobody panicked").is_empty());
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn a_hub_without_the_model_is_told_in_words() {
    let folder = checkpoint::write();
    std::fs::remove_file(folder.join("model.safetensors")).expect("it was there");
    let home = folder.with_file_name("home");
    let (url, _) = hub(folder.clone());
    let told = complete(&home, &url);
    let words = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && words.contains("model.safetensors"), "{words}");
    assert!(words.contains("hf download some/tiny"), "{words}");
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}
