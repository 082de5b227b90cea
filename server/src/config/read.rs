//! From command line, file and environment to settings.

use super::{Arguments, Config, Machine, Model, Task, file, partners};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::Path;

impl Config {
    /// From command line, file and environment; prints help or what is wrong, and ends
    /// the process, if there is such.
    pub fn from_args() -> Self {
        match Self::read(std::env::args_os().collect()) {
            Ok(config) => config,
            Err(error) => error.exit(),
        }
    }

    pub(super) fn read(mut given: Vec<OsString>) -> Result<Self, clap::Error> {
        let at = command_at(&given);
        if given.get(at).is_none_or(begins_settings) {
            given.insert(at, "serve".into());
        }
        // What stands before the command is of it.
        given[1..=at].rotate_right(1);
        let mut arguments = parse(&given)?;
        if let Some(path) = arguments.config.clone() {
            let settings = from_file(&path, &given, &arguments)?;
            given.splice(2..2, settings);
            arguments = parse(&given)?;
        }
        let matches = command().try_get_matches_from(&given)?;
        partners::check(&matches)?;
        let told = told(&matches);
        let task = arguments.task.expect("there is a command");
        Ok(Self { task, told })
    }
}

fn parse(given: &[OsString]) -> Result<Arguments, clap::Error> {
    Arguments::from_arg_matches(&command().try_get_matches_from(given)?)
}

/// The commands with all their settings. A switch takes a value, too: so what a file turns
/// on the command line can turn off.
pub(super) fn command() -> Command {
    let with_value = |setting: Arg| match setting.get_action() {
        ArgAction::SetTrue => setting
            .action(ArgAction::Set)
            .value_parser(clap::value_parser!(bool))
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true"),
        _ => setting,
    };
    Arguments::command().mut_subcommands(|command| command.mut_args(with_value))
}

/// The settings of a file that this command has and that were not given before it.
fn from_file(
    path: &Path,
    given: &[OsString],
    arguments: &Arguments,
) -> Result<Vec<OsString>, clap::Error> {
    let command = command();
    let named = |name: &str, option: &str| {
        let own = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
        own.filter_map(Arg::get_long).any(|long| Some(long) == option.strip_prefix("--"))
    };
    let model = arguments.task.as_ref().and_then(Task::model).and_then(Model::name);
    let task = given[1].to_string_lossy();
    let mut settings = Vec::new();
    for (key, option) in file::arguments(path)? {
        let name = option_name(&option);
        let own = named(&task, &name);
        // One file may serve all commands.
        if !own && !named("serve", &name) {
            return Err(file::wrong(path, &format!("{key}: there is no such setting")));
        }
        let said = given.iter().any(|word| option_name(word) == name);
        if !own || said || (name == "--model-path" && model.is_some()) {
            continue;
        }
        let alone = [&given[..2], std::slice::from_ref(&option), &given[2..]].concat();
        if let Err(error) = parse(&alone) {
            return Err(file::wrong(path, &format!("{key}: {}", plain(&error))));
        }
        settings.push(option);
    }
    Ok(settings)
}

/// What is wrong, without advice for those who typed it.
fn plain(error: &clap::Error) -> String {
    let words = error.to_string();
    let first = words.lines().next().unwrap_or("");
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// All settings of the command, as they are: its own, the file's, or left as they were.
/// What opens something is not told.
fn told(matches: &ArgMatches) -> Vec<(String, String)> {
    let command = command();
    let Some((task, matches)) = matches.subcommand() else { return Vec::new() };
    let own = command.find_subcommand(task).into_iter().flat_map(Command::get_arguments);
    let settings = own.filter_map(|setting| {
        let given = matches.get_raw(setting.get_id().as_str());
        let values: Vec<_> = given.into_iter().flatten().map(|raw| raw.to_string_lossy()).collect();
        let words = match values.len() {
            0 => "-".to_owned(),
            _ if setting.is_hide_env_values_set() => "(not shown)".to_owned(),
            _ => values.join(","),
        };
        Some((setting.get_long()?.to_owned(), words))
    });
    settings.collect()
}

/// Where the command stands, or would stand: after options that may come before it.
fn command_at(given: &[OsString]) -> usize {
    let early = Machine::augment_args(Command::new("")).arg(Arg::new("config").long("config"));
    let is_early = |name: &str| {
        let mut options = early.get_arguments();
        options.any(|option| option.get_long() == name.strip_prefix("--"))
    };
    let mut at = 1;
    while let Some(word) = given.get(at).and_then(|word| word.to_str()) {
        at += match word.split_once('=') {
            Some((name, _)) if is_early(name) => 1,
            None if is_early(word) => 2,
            _ => break,
        };
    }
    at.min(given.len())
}

/// A word without what follows its `=`.
fn option_name(word: &OsString) -> String {
    let word = word.to_string_lossy();
    word.split_once('=').map_or(&*word, |(name, _)| name).to_owned()
}

/// Whether a word where a command is expected is one of settings: neither a command, nor
/// what might have been meant for one, nor a question about all commands.
fn begins_settings(word: &OsString) -> bool {
    let word = word.to_string_lossy();
    word.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&&*word)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Device, Machine, Serve, Task};
    use clap::error::ErrorKind;
    use std::path::PathBuf;

    fn read(given: &[&str]) -> Result<Config, clap::Error> {
        let words = std::iter::once("pagewise").chain(given.iter().copied());
        Config::read(words.map(Into::into).collect())
    }

    fn serve(given: &[&str]) -> Serve {
        Serve::of(given)
    }

    #[test]
    fn without_a_command_it_serves_and_the_settings_still_count() {
        let machine = serve(&["--threads", "3", "--level", "scalar"]).machine;
        assert_eq!((machine.threads(), machine.level().name()), (3, "scalar"));
        assert!(read(&["--level", "abacus"]).is_err());
    }

    #[test]
    fn settings_without_a_command_are_those_of_serve() {
        let port = |given: &[&str]| serve(given).port;
        assert_eq!(port(&["--port", "9000"]), 9000);
        assert_eq!(port(&["--port=9000", "--threads", "3"]), 9000);
        assert_eq!(port(&["--threads=3", "--level", "scalar", "--port", "9000"]), 9000);
        // Neither is a command: a value of a setting.
        let named = serve(&["--served-model-name", "chat", "--model-path", "info"]);
        assert_eq!(named.served_model_name.as_deref(), Some("chat"));
        assert_eq!(named.model.name(), Some("info"));
        // What is wrong is said of the setting.
        let wrong = read(&["--port", "many"]).expect_err("no number");
        assert!(wrong.to_string().contains("'--port <PORT>'"), "{wrong}");
        let wrong = read(&["--prot", "9000"]).expect_err("a slip");
        assert!(wrong.to_string().contains("'--port'"), "{wrong}");
    }

    #[test]
    fn a_command_that_there_is_not_is_no_model() {
        let wrong = read(&["severe", "--port", "9000"]).expect_err("a slip");
        assert_eq!(wrong.kind(), ErrorKind::InvalidSubcommand);
        assert!(wrong.to_string().contains("'serve'"), "{wrong}");
        // Of other commands the settings are their own.
        let wrong = read(&["chat", "--port", "9000"]).expect_err("a server's");
        assert_eq!(wrong.kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn questions_about_all_commands_are_answered() {
        for (word, kind) in [
            ("--help", ErrorKind::DisplayHelp),
            ("-h", ErrorKind::DisplayHelp),
            ("--version", ErrorKind::DisplayVersion),
            ("-V", ErrorKind::DisplayVersion),
        ] {
            let told = read(&["--threads", "3", word]).expect_err("no task");
            assert_eq!(told.kind(), kind);
            assert!(!told.to_string().contains("--port"), "{told}");
        }
        let told = read(&["--port", "9000", "--help"]).expect_err("no task");
        assert!(told.to_string().contains("--port"), "of a server's settings: {told}");
    }

    #[test]
    fn a_model_is_named_by_place_or_option_but_not_both() {
        assert_eq!(serve(&["serve", "m"]).model.name(), Some("m"));
        assert_eq!(serve(&["serve", "--model-path", "m"]).model.name(), Some("m"));
        assert!(read(&["serve", "m", "--model-path", "n"]).is_err());
    }

    #[test]
    fn a_key_is_never_empty() {
        for keys in ["", "secret,", ",secret"] {
            assert!(read(&["serve", "--api-key", keys]).is_err(), "{keys}");
        }
    }

    #[test]
    fn a_file_has_the_same_names_and_the_command_line_comes_first() {
        let folder = std::env::temp_dir().join(format!("pagewise-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let yaml = folder.join("a.yaml");
        std::fs::write(&yaml, "port: 1234\nmax_batch_size: 5\napi-key: [a, b]\nhost: 0.0.0.0\n")
            .expect("a file");
        let toml = folder.join("a.toml");
        std::fs::write(
            &toml,
            "port = 1234\nmax-batch-size = 5\napi-key = [\"a\", \"b\"]\nhost = \"0.0.0.0\"\n",
        )
        .expect("a file");
        for path in [&yaml, &toml] {
            let path = path.to_str().expect("plain");
            let read = serve(&["serve", "--port", "99", "--config", path]);
            assert_eq!((read.port, read.running.max_batch_size), (99, 5), "{path}");
            assert_eq!(read.limits.api_key, ["a", "b"]);
            assert_eq!(read.host, "0.0.0.0");
            let read = serve(&["serve", "--api-key", "c", "--config", path]);
            assert_eq!(read.limits.api_key, ["c"], "{path}: the file's keys open no longer");
        }
        std::fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn options_of_the_machine_may_come_before_a_command_that_has_them() {
        let given = read(&["--threads", "3", "chat", "m"]).expect("settings");
        assert!(matches!(given.task, Task::Chat(talk) if talk.machine.threads() == 3));
        for command in ["info", "bench"] {
            let wrong = read(&["--threads", "3", command]).expect_err("it computes nothing");
            assert_eq!(wrong.kind(), ErrorKind::UnknownArgument, "{command}");
        }
        // Where a model would be run, somebody must say to know what fits.
        let given = read(&["info", "--device", "cuda:1"]).expect("settings");
        let of = |task| match task {
            Task::Info(info) => Machine::at(info.place).device(),
            _ => Device::Cpu,
        };
        assert_eq!(of(given.task), Device::Plugin("cuda", 1));
    }

    /// A file of settings with this text, for as long as it is held.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("pagewise-{}-{name}.yaml", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).expect("a file");
            Self(path)
        }

        fn read(&self, given: &[&str]) -> Result<Config, clap::Error> {
            read(&[given, &["--config", self.0.to_str().expect("plain")]].concat())
        }

        fn serve(&self, given: &[&str]) -> Serve {
            match self.read(given).expect("a server's settings").task {
                Task::Serve(serve) => *serve,
                other => panic!("not a server: {other:?}"),
            }
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_changes_nothing_is_refused_by_what_it_misses() {
        for (idle, partner) in [
            (["--checkpoint-every", "2"], ["--checkpoint-dir", "d"]),
            (["--checkpoint-keep", "5"], ["--checkpoint-dir", "d"]),
            (["--checkpoint-better", "lower"], ["--checkpoint-dir", "d"]),
            (["--checkpoint-resume", "--port=1"], ["--checkpoint-dir", "d"]),
            (["--trajectory-max-bytes", "1GiB"], ["--trajectory-dir", "d"]),
            (["--trajectory-policy", "refuse"], ["--trajectory-dir", "d"]),
            (["--trajectory-sync", "always"], ["--trajectory-dir", "d"]),
            (["--atropos-name", "name"], ["--atropos-url", "http://localhost"]),
            (["--atropos-group-size", "8"], ["--atropos-url", "http://localhost"]),
            (["--atropos-weight", "1"], ["--atropos-url", "http://localhost"]),
            (["--draft-quantize", "q8"], ["--draft", "base"]),
            (["--draft-batch", "32"], ["--draft-tokens", "4"]),
        ] {
            let wrong = read(&[&["serve"][..], &idle].concat()).expect_err("it is idle");
            let words = wrong.to_string();
            assert!(words.contains(idle[0]) && words.contains(partner[0]), "{words}");
            read(&[&["serve"][..], &idle, &partner].concat()).expect("it is not");
            // Whichever of them a file has.
            let file = File::new("partner", &format!("{}: {}\n", &partner[0][2..], partner[1]));
            file.serve(&[&["serve"][..], &idle].concat());
            let value = if idle[0].ends_with("resume") { "true" } else { idle[1] };
            let text = format!("{}: {value}\n", &idle[0][2..]);
            let file = File::new("idle", &text);
            file.serve(&[&["serve"][..], &partner].concat());
            let wrong = file.read(&["serve"]).expect_err("it is idle").to_string();
            assert!(wrong.contains(idle[0]) && wrong.contains(partner[0]), "{wrong}");
        }
        serve(&["--checkpoint-resume=false"]);
    }

    #[test]
    fn a_model_of_the_command_line_comes_before_the_files() {
        for key in ["model", "model-path", "model_path"] {
            let file = File::new(key, &format!("{key}: files\n"));
            assert_eq!(file.serve(&["serve"]).model.name(), Some("files"), "{key}");
            assert_eq!(file.serve(&["serve", "m"]).model.name(), Some("m"), "{key}");
            assert_eq!(file.serve(&["--model-path", "m"]).model.name(), Some("m"), "{key}");
        }
    }

    #[test]
    fn a_switch_of_a_file_can_be_turned_off() {
        let trusts = |serve: Serve| serve.limits.trust_request_chat_template;
        let file = File::new("switch", "trust-request-chat-template: true\n");
        assert!(trusts(file.serve(&["serve"])));
        assert!(!trusts(file.serve(&["serve", "--trust-request-chat-template=false"])));
        assert!(trusts(serve(&["--trust-request-chat-template"])));
        assert!(!trusts(serve(&[])));
    }

    #[test]
    fn settings_of_a_server_are_passed_over_by_other_commands() {
        let file = File::new("shared", "port: 1234\nmax-tokens: 7\nmax-batch-size: 5\n");
        let given = file.read(&["complete", "Hello"]).expect("settings");
        let Task::Complete(complete) = given.task else { panic!("another command") };
        assert_eq!((complete.drawing.max_tokens, complete.running.max_batch_size), (7, 5));
        // A server has no such setting, nor has anybody else.
        let wrong = file.read(&["serve"]).expect_err("another command's").to_string();
        assert!(wrong.contains("shared.yaml: max-tokens: there is no such setting"), "{wrong}");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_told_by_file_and_key() {
        for (key, value) in [("port", "many"), ("max_batch_size", "0"), ("prot", "1")] {
            let file = File::new(key, &format!("host: 0.0.0.0\n{key}: {value}\n"));
            let wrong = file.read(&["serve", "m"]).expect_err("a slip").to_string();
            assert!(wrong.contains(&format!("{key}.yaml: {key}: ")), "{wrong}");
        }
    }

    #[test]
    fn settings_are_told_as_they_are_but_for_keys() {
        let file = File::new("told", "api-key: [secret, other]\nmax-queue: 7\n");
        let told = file.read(&["--port", "9000", "m"]).expect("settings").told;
        let of = |name: &str| {
            let setting = told.iter().find(|(other, _)| other == name);
            setting.unwrap_or_else(|| panic!("{name} is not in {told:?}")).1.as_str()
        };
        assert_eq!((of("port"), of("max-queue"), of("max-batch-size")), ("9000", "7", "64"));
        assert_eq!((of("api-key"), of("max-model-len")), ("(not shown)", "-"));
        assert!(!format!("{told:?}").contains("secret"));
    }
}
