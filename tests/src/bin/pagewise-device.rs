//! On a card, or on what stands in for one: whether its kernels are right, and how long they
//! take.
//!
//! ```text
//! pagewise-device parity|company|bench [KERNEL]... --device cuda:0|metal --plugins FOLDER
//!                 [--out FILE] [--quick] [--apart SECONDS]
//! pagewise-device shapes [--out FILE] [--quick]     what bench times, for peers
//! pagewise-device table RECORD... --out FILE        records as one; prints ours beside peers
//! ```
//! `--apart` gives each kernel a process of its own and so many seconds: a device that one has
//! broken is whole again for the next. Ends with 1 where something is wrong, with 2 where it was not asked for as above.

#![expect(clippy::print_stderr, reason = "a command-line tool")]

use backends::plugin::{Plugin, Refused};
use pagewise_tests::device::report::Extent;
use pagewise_tests::device::{Device, bench, record, report};
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What the process is asked for.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    chore: String,
    /// Kernels, or records.
    names: Vec<String>,
    device: Option<String>,
    plugins: Option<PathBuf>,
    out: Option<PathBuf>,
    is_quick: bool,
    /// Seconds of each kernel in a process of its own.
    apart: Option<u64>,
}

impl Asked {
    fn of(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut asked = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} lacks its value"));
            match word.as_str() {
                "--device" => asked.device = Some(value()?),
                "--plugins" => asked.plugins = Some(value()?.into()),
                "--out" => asked.out = Some(value()?.into()),
                "--quick" => asked.is_quick = true,
                "--apart" => {
                    let seconds = value()?;
                    let number = seconds.parse().ok().filter(|seconds| *seconds > 0);
                    asked.apart = Some(number.ok_or(format!("--apart {seconds} is no time"))?);
                }
                _ if word.starts_with('-') => return Err(format!("there is no {word}")),
                _ if asked.chore.is_empty() => asked.chore = word,
                _ => asked.names.push(word),
            }
        }
        match asked.chore.as_str() {
            "" => Err("parity, company, bench, shapes or table?".to_owned()),
            "table" if asked.out.is_none() => Err("table --out FILE?".to_owned()),
            chore if asked.apart.is_some() && (asked.out.is_some() || chore == "bench") => {
                Err("--apart is of parity and company, without --out".to_owned())
            }
            "parity" | "company" | "bench" | "shapes" | "table" => Ok(asked),
            chore => Err(format!("there is no {chore}")),
        }
    }

    /// The device: its kind and number.
    fn kind(&self) -> Result<(&str, u32), String> {
        let device = self.device.as_deref().ok_or("--device cuda:0, or metal?")?;
        let (kind, ordinal) = device.split_once(':').unwrap_or((device, "0"));
        match (kind, ordinal.parse()) {
            ("cuda" | "metal", Ok(ordinal)) => Ok((kind, ordinal)),
            _ => Err(format!("--device {device} is neither cuda:NUMBER nor metal")),
        }
    }
}

fn main() -> ExitCode {
    let done = Asked::of(std::env::args().skip(1)).map_err(|words| (2, words)).and_then(run);
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("pagewise-device: {wrong} wrong");
            ExitCode::FAILURE
        }
        Err((code, words)) => {
            eprintln!("pagewise-device: {words}");
            ExitCode::from(code)
        }
    }
}

/// Does it; how much was wrong.
fn run(asked: Asked) -> Result<usize, (u8, String)> {
    let failed = |error: io::Error| (1, error.to_string());
    let mut out: Box<dyn Write> = match &asked.out {
        None => Box::new(io::stdout()),
        Some(path) => {
            let file = File::create(path);
            Box::new(file.map_err(|error| (1, format!("{}: {error}", path.display())))?)
        }
    };
    match asked.chore.as_str() {
        "shapes" => return report::shapes(asked.is_quick, &mut out).map(|()| 0).map_err(failed),
        "table" => return table(&asked, &mut out).map(|()| 0).map_err(failed),
        _ => (),
    }
    let extent = Extent { is_quick: asked.is_quick, kernels: &asked.names };
    if let Some(unknown) = extent.unknown() {
        return Err((2, format!("there is no kernel {unknown}")));
    }
    if let Some(seconds) = asked.apart {
        return apart(&asked, extent, Duration::from_secs(seconds)).map_err(failed);
    }
    let (kind, ordinal) = asked.kind().map_err(|words| (2, words))?;
    let folder = asked.plugins.as_deref().ok_or((2, "--plugins FOLDER?".to_owned()))?;
    let open = || Plugin::load(folder, kind, ordinal).map(Device::card);
    let refused = |refused: Refused| (1, refused.to_string());
    let told = |device: &Device| {
        let about = device.plugin.about();
        eprintln!("{}: {}", about.name, about.numerics);
    };
    let done = match asked.chore.as_str() {
        "bench" => {
            let (mut device, first) = bench::first_launch(open).map_err(refused)?;
            told(&device);
            report::bench(&mut device, extent, first, &mut out)
        }
        chore => {
            let mut device = open().map_err(refused)?;
            told(&device);
            match chore {
                "parity" => report::parity(&mut device, extent, &mut out),
                _ => report::company(&mut device, extent, &mut out),
            }
        }
    };
    done.map_err(failed)
}

/// Each kernel in a process of its own, whose output is this one's; how many were wrong.
fn apart(asked: &Asked, extent: Extent<'_>, limit: Duration) -> io::Result<usize> {
    let mut wrong = 0;
    for name in extent.names() {
        let mut one = Command::new(std::env::current_exe()?);
        one.args([&asked.chore, name]);
        if let Some(device) = &asked.device {
            one.args(["--device", device]);
        }
        if let Some(folder) = &asked.plugins {
            one.arg("--plugins").arg(folder);
        }
        if asked.is_quick {
            one.arg("--quick");
        }
        let mut one = one.spawn()?;
        let until = Instant::now() + limit;
        let ended = loop {
            match one.try_wait()? {
                Some(ended) => break Some(ended),
                None if Instant::now() >= until => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        match ended {
            Some(ended) if ended.success() => {}
            // It has said what is wrong.
            Some(ended) if ended.code() == Some(1) => wrong += 1,
            Some(ended) => {
                wrong += 1;
                writeln!(io::stdout(), "{name}: WRONG: it ended by {ended}")?;
            }
            None => {
                wrong += 1;
                one.kill()?;
                one.wait()?;
                let seconds = limit.as_secs();
                writeln!(io::stdout(), "{name}: WRONG: it took more than {seconds} s")?;
            }
        }
    }
    Ok(wrong)
}

/// Records as one; and to the reader what we take beside what peers take.
fn table(asked: &Asked, out: &mut dyn Write) -> io::Result<()> {
    let mut rows = Vec::new();
    for path in &asked.names {
        // A stage that died early has left no record.
        match std::fs::read_to_string(path) {
            Ok(text) => rows.extend(record::rows(&text)),
            Err(error) => eprintln!("{path}: {error}"),
        }
    }
    record::complete(&mut rows);
    out.write_all(record::csv(&rows).as_bytes())?;
    io::stdout().write_all(record::beside_peers(&rows).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::Asked;

    fn asked(words: &str) -> Result<Asked, String> {
        Asked::of(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn words_come_in_any_order() {
        let one = asked("parity --plugins p --device cuda:1 norm --quick").expect("good words");
        let other = asked("--quick --device cuda:1 parity norm --plugins p").expect("good words");
        assert_eq!(one, other);
        assert_eq!(one.kind(), Ok(("cuda", 1)));
        assert_eq!(one.names, ["norm"]);
        assert_eq!(asked("bench --device metal").expect("good words").kind(), Ok(("metal", 0)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_word() {
        for (words, says) in [
            ("", "parity, company"),
            ("parities", "parities"),
            ("parity --fast", "--fast"),
            ("parity --device", "--device lacks"),
            ("table a.csv", "--out"),
            ("parity --apart 0", "--apart 0"),
            ("bench --apart 9", "parity and company"),
            ("parity --apart 9 --out a", "without --out"),
        ] {
            let said = asked(words).expect_err("it is refused");
            assert!(said.contains(says), "{said}");
        }
        for device in ["cpu", "cuda:x", "metal:-1"] {
            let asked = asked(&format!("bench --device {device}")).expect("good words");
            assert!(asked.kind().is_err(), "{device}");
        }
    }
}
