//! The name of this machine, by its CPU, and today's date.

use std::time::{SystemTime, UNIX_EPOCH};

/// Such as `xeon-6-207-2c`: what the model calls itself, family, model, cores.
pub fn name() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    format!("{}-{cores}c", cpu(&info))
}

fn cpu(info: &str) -> String {
    let field = |name: &str| {
        let line = info.lines().find(|line| line.split(':').next().map(str::trim) == Some(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    // Arm machines give numbers for their maker and part, and no name.
    let parts = match field("model name") {
        Some(model) => [model_word(&model), field("cpu family"), field("model")],
        None => [Some(std::env::consts::ARCH.into()), field("CPU implementer"), field("CPU part")],
    };
    parts.into_iter().flatten().collect::<Vec<_>>().join("-").to_lowercase()
}

/// The words of a model's name that tell it from others, without the maker's.
fn model_word(model: &str) -> Option<String> {
    let plain = model.replace("(R)", " ").replace("(TM)", " ");
    let plain = plain.split('@').next().unwrap_or_default();
    let dull = ["intel", "amd", "cpu", "processor", "core"];
    let words = plain.split_whitespace().filter(|word| !dull.contains(&&*word.to_lowercase()));
    let words: Vec<String> = words
        .map(|word| word.chars().filter(char::is_ascii_alphanumeric).collect())
        .filter(|word: &String| !word.is_empty())
        .collect();
    (!words.is_empty()).then(|| words.join("-"))
}

/// Today in UTC, as `2026-11-20`.
pub fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    civil(seconds / 86_400)
}

/// The day so many days after 1970-01-01.
fn civil(mut days: u64) -> String {
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::{civil, cpu};

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), "1970-01-01");
        assert_eq!(civil(11_016), "2000-02-29");
        assert_eq!(civil(20_777), "2026-11-20");
    }

    #[test]
    fn a_machine_is_named_by_what_tells_it_from_others() {
        let info = "cpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Processor\n";
        assert_eq!(cpu(info), "xeon-6-207");
    }
}
