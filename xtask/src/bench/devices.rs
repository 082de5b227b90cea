//! What docs/performance.md says of devices without one: bytes that the emulator counted
//! (tests/emulator/bytes.csv), and how many blocks a multiprocessor holds, by what the
//! compiler says (cuda/resources.csv) and launches ask for (tests/emulator/launches.csv).

use crate::cuda::occupancy::{Block, Limits};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "
## Devices: not measured

No kernel has run on a card or on a Mac; no time is stated. What the emulator counts of a call, and
what the compiler says, is held by tests.

**Bytes over the floor.** `operand` is the buffer that is most of the bytes (K and V, weights,
logits): what blocks read of it, each through a cache of 128 KiB, over what is needed of it. `all` is
all that launches read and write, workspaces too, over each needed byte once, where blocks of a launch
share what they read and launches do not. Sectors of 32 bytes count whole. Asked for is 1.10 at most.
Shapes are small, for an emulator runs them, and keep the ratios of large ones: 8 heads of queries and
2 of keys at 4096 positions stand for 32 and 8 at 32768.
";

const OCCUPANCY_HEAD: &str = "
**Occupancy of CUDA's entries**, by registers, shared memory and threads of the calls above: warps
that a multiprocessor holds at once, of 64, and blocks. None spills.
";

/// Above this a figure is in bold.
const BAR: f64 = 1.1;
const ARCHS: [&str; 3] = ["sm_80", "sm_90a", "sm_100"];

/// The section.
pub fn section(root: &Path) -> Result<String, String> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(root.join(path));
        text.map_err(|error| format!("{path}: {error}"))
    };
    let bytes = bytes(&read("tests/emulator/bytes.csv")?)?;
    let launches = read("tests/emulator/launches.csv")?;
    let resources = read("cuda/resources.csv")?;
    Ok([HEAD, "\n", &bytes, OCCUPANCY_HEAD, "\n", &occupancy(&launches, &resources)?].concat())
}

/// The fields of each line after the first, of which there must be so many.
fn lines<const FIELDS: usize>(text: &str) -> Result<Vec<[&str; FIELDS]>, String> {
    text.lines().skip(1).map(fields).collect()
}

fn fields<const FIELDS: usize>(line: &str) -> Result<[&str; FIELDS], String> {
    let fields: Vec<&str> = line.split(',').collect();
    let got = fields.len();
    fields.try_into().map_err(|_| format!("{line:?} has {got} fields, not {FIELDS}"))
}

fn bytes(text: &str) -> Result<String, String> {
    let mut page = String::from(
        "| device | kernel | call | operand | all | why |\n|---|---|---|---:|---:|---|\n",
    );
    for [device, kernel, call, operand, all, why] in lines::<6>(text)? {
        let (operand, all) = (over_bar(operand)?, over_bar(all)?);
        let _ = writeln!(page, "| {device} | {kernel} | {call} | {operand} | {all} | {why} |");
    }
    Ok(page)
}

/// A figure, in bold where it is above the bar.
fn over_bar(figure: &str) -> Result<String, String> {
    if figure.is_empty() {
        return Ok(String::new());
    }
    let value: f64 = figure.parse().map_err(|_| format!("{figure:?} is no figure"))?;
    Ok(if value > BAR { format!("**{figure}**") } else { figure.to_owned() })
}

/// A row for each entry, threads and shared memory; calls that launch it alike share one.
fn occupancy(launches: &str, resources: &str) -> Result<String, String> {
    let mut taken = BTreeMap::new();
    for [entry, arch, registers, shared, stack, spilled] in lines::<6>(resources)? {
        if number(stack)? + number(spilled)? > 0 {
            return Err(format!("cuda/resources.csv: {entry} spills on {arch}"));
        }
        taken.insert((entry, arch), (number(registers)?, number(shared)?));
    }
    let mut page = String::from("| entry | threads | dynamic shared bytes |");
    ARCHS.iter().for_each(|arch| page += &format!(" {arch} |"));
    page += "\n|---|---:|---:|---|---|---|\n";
    let mut asked: Vec<[&str; 3]> = Vec::new();
    for [_, _, entry, threads, shared] in lines::<5>(launches)? {
        if !asked.contains(&[entry, threads, shared]) {
            asked.push([entry, threads, shared]);
        }
    }
    asked.sort_unstable();
    for [entry, threads, shared] in asked {
        let _ = write!(page, "| `{entry}` | {threads} | {shared} |");
        for arch in ARCHS {
            let lacks = || format!("cuda/resources.csv has no {entry} on {arch}");
            let (registers, fixed) = *taken.get(&(entry, arch)).ok_or_else(lacks)?;
            let limits = Limits::of(arch).ok_or_else(|| format!("{arch} has no limits"))?;
            // The system's part is in the compiler's figure from sm_90 on.
            let own = fixed - fixed.min(if arch == "sm_80" { 0 } else { 1024 });
            let shared_bytes = number(shared)? + own;
            let block = Block { threads: number(threads)?, registers, shared_bytes };
            let share = 100.0 * limits.occupancy(&block);
            let _ =
                write!(page, " {registers} registers, {share:.0} %, {} |", limits.blocks(&block));
        }
        page.push('\n');
    }
    Ok(page)
}

fn number(field: &str) -> Result<u64, String> {
    field.parse().map_err(|_| format!("{field:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::{bytes, occupancy};

    #[test]
    fn figures_above_the_bar_are_in_bold() {
        let page = bytes("head\ncuda,norm,a call,,1.10,\ncuda,matmul,a call,1.02,1.11,twice\n");
        let rows = "| cuda | norm | a call |  | 1.10 |  |\n| cuda | matmul | a call | 1.02 | **1.11** | twice |\n";
        assert!(page.expect("a good file").ends_with(rows));
        assert!(bytes("head\ncuda,norm,a call,1.1,\n").is_err());
        assert!(bytes("head\ncuda,norm,a call,,many,\n").is_err());
    }

    #[test]
    fn occupancy_is_by_what_the_compiler_says_and_a_launch_asks_for() {
        let resources = "head\nf,sm_80,168,0,0,0\nf,sm_90a,168,1024,0,0\nf,sm_100,32,1024,0,0\n";
        let page = occupancy("head\nk,a call,f,128,0\nk,another,f,128,0\n", resources);
        let page = page.expect("good files");
        let row = "| `f` | 128 | 0 | 168 registers, 19 %, 3 | 168 registers, 19 %, 3 \
                   | 32 registers, 100 %, 16 |\n";
        assert!(page.ends_with(row), "{page}");
        assert_eq!(page.lines().count(), 3, "two calls that launch alike are one row");
        assert!(occupancy("head\nk,a call,g,128,0\n", resources).is_err());
    }
}
