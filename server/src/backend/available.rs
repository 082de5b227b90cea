//! Memory that can be had: what the system has free, within the limits of the control
//! groups that this process is in.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can be allocated without pushing anything out, if the system tells.
pub fn available_bytes() -> Option<u64> {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|info| free(&info));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = left(&groups, Path::new("/sys/fs/cgroup"));
    free.into_iter().chain(left).min()
}

/// By `/proc/meminfo`.
fn free(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the limits of control groups leave, by `/proc/self/cgroup` and where the groups
/// are mounted. A container may see its own group as the outermost, so groups that are not
/// there are passed over.
fn left(groups: &str, mount: &Path) -> Option<u64> {
    let lefts = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        // The second version has one tree, the first one for each controller.
        let (root, [limit, used, cache]) = match controllers {
            "" => (mount.to_owned(), ["memory.max", "memory.current", "inactive_file"]),
            _ if controllers.split(',').any(|name| name == "memory") => (
                mount.join("memory"),
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
            ),
            _ => return None,
        };
        let own = root.join(path);
        let within = own.ancestors().take_while(|folder| folder.starts_with(&root));
        within.filter_map(|folder| left_in(folder, limit, used, cache)).min()
    });
    lefts.min()
}

/// What the limit of one group leaves, if it has one.
fn left_in(folder: &Path, limit: &str, used: &str, cache: &str) -> Option<u64> {
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let limit = number(folder.join(limit))?;
    // Files that were read count as used until their room is needed.
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cache = stat.lines().find_map(|line| line.strip_prefix(cache)?.trim().parse().ok());
    let used = number(folder.join(used))?.saturating_sub(cache.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::{free, left};
    use std::fs;
    use std::path::Path;

    fn group(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("a folder");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file");
        }
    }

    #[test]
    fn the_system_tells_what_is_free() {
        assert_eq!(free("MemTotal: 9 kB\nMemAvailable:    3 kB\n"), Some(3 * 1024));
        assert_eq!(free("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn the_tightest_group_counts_and_cached_files_are_not_used() {
        let mount = std::env::temp_dir().join(format!("pagewise-groups-{}", std::process::id()));
        group(&mount.join("a"), &[("memory.max", "1000\n"), ("memory.current", "300\n")]);
        group(
            &mount.join("a/b"),
            &[
                ("memory.max", "900\n"),
                ("memory.current", "280\n"),
                ("memory.stat", "anon 100\ninactive_file 120\n"),
            ],
        );
        group(&mount.join("a/open"), &[("memory.max", "max\n"), ("memory.current", "5\n")]);
        let first = [("memory.limit_in_bytes", "500\n"), ("memory.usage_in_bytes", "400\n")];
        group(&mount.join("memory"), &first);
        assert_eq!(left("0::/a/b\n", &mount), Some(700));
        assert_eq!(left("0::/a/open\n", &mount), Some(700));
        assert_eq!(left("0::/\n", &mount), None);
        // Of the first version, from within a container that sees no group but its own.
        assert_eq!(left("5:cpu:/a\n4:memory:/gone/own\n0::/a/b\n", &mount), Some(100));
        fs::remove_dir_all(&mount).expect("removed");
    }
}
