//! Settings that nothing looks at unless another one is given.

use super::read::command;
use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

/// Settings, and those of which one must be there with them.
const PARTNERS: [(&[&str], &[&str]); 5] = [
    (
        &["checkpoint_every", "checkpoint_keep", "checkpoint_better", "checkpoint_resume"],
        &["checkpoint_dir"],
    ),
    (&["trajectory_max_bytes", "trajectory_policy", "trajectory_sync"], &["trajectory_dir"]),
    (&["atropos_name", "atropos_group_size", "atropos_weight"], &["atropos_url"]),
    (&["draft_quantize"], &["draft"]),
    (&["draft_batch"], &["draft_tokens", "draft", "draft_model"]),
];

/// Refuses settings that somebody gave, and that change nothing as the others are. Clap's own
/// `requires` would look at command line and file apart.
pub fn check(matches: &ArgMatches) -> Result<(), clap::Error> {
    let Some((_, matches)) = matches.subcommand() else { return Ok(()) };
    for (settings, partners) in PARTNERS {
        if partners.iter().any(|partner| is_given(matches, partner)) {
            continue;
        }
        if let Some(idle) = settings.iter().find(|setting| is_given(matches, setting)) {
            let partners: Vec<String> = partners.iter().map(|partner| option(partner)).collect();
            let words =
                format!("{}: nothing comes of it without {}", option(idle), partners.join(" or "));
            return Err(command().error(ErrorKind::MissingRequiredArgument, words));
        }
    }
    Ok(())
}

/// Whether somebody gave it: a switch that is off is not given.
fn is_given(matches: &ArgMatches, setting: &str) -> bool {
    matches.ids().any(|id| id == setting)
        && matches.value_source(setting) != Some(ValueSource::DefaultValue)
        && !matches!(matches.try_get_one::<bool>(setting), Ok(Some(false)))
}

fn option(setting: &str) -> String {
    format!("--{}", setting.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::{PARTNERS, command};

    #[test]
    fn all_of_them_are_settings() {
        let command = command();
        let serve = command.find_subcommand("serve").expect("there is one");
        for setting in
            PARTNERS.iter().flat_map(|(settings, partners)| settings.iter().chain(*partners))
        {
            assert!(serve.get_arguments().any(|own| own.get_id() == setting), "{setting}");
        }
    }
}
