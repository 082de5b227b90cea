//! Memory that can be had: what the system has free, within the limits of the control
//! groups that this process is in, and of its addresses.

use std::fs;
use std::path::{Path, PathBuf};

/// Addresses that threads of a server and their allocator take once it runs, though they use
/// little of that memory: stacks on which grammars are compiled, most of it.
const THREADS_BYTES: u64 = 2 << 30;

/// Bytes that can be allocated without pushing anything out, if the system tells.
pub fn available_bytes() -> Option<u64> {
    memory_bytes().into_iter().chain(addresses_left()).min()
}

/// The same, before a server has its threads.
pub fn available_at_start() -> Option<u64> {
    let addresses = addresses_left().map(|left| left.saturating_sub(THREADS_BYTES));
    memory_bytes().into_iter().chain(addresses).min()
}

/// Bytes of addresses that the limit of this process (`ulimit -v`) leaves, if it has one.
pub fn addresses_left() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    addresses(&limits, &status)
}

fn memory_bytes() -> Option<u64> {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|info| free(&info));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = left(&groups, Path::new("/sys/fs/cgroup"));
    free.into_iter().chain(left).min()
}

/// By `/proc/meminfo`.
fn free(info: &str) -> Option<u64> {
    bytes(info, "MemAvailable:")
}

/// By `/proc/self/limits`, and what is taken by `/proc/self/status`.
fn addresses(limits: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(bytes(status, "VmSize:")?))
}

/// What a file of the system tells in KiB.
fn bytes(told: &str, name: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.strip_prefix(name))?;
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
    use super::{addresses, free, left};
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
    fn a_limit_of_addresses_leaves_what_is_not_taken() {
        let limits =
            |soft| format!("Limit  Soft  Hard  Units\nMax address space  {soft}  9  bytes\n");
        let status = "VmPeak:\t 9 kB\nVmSize:\t 3 kB\n";
        assert_eq!(addresses(&limits("5120"), status), Some(2048));
        assert_eq!(addresses(&limits("1024"), status), Some(0));
        assert_eq!(addresses(&limits("unlimited"), status), None);
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
