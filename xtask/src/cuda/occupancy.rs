//! How many blocks of a launch a multiprocessor holds at once, by the limits that CUDA's
//! programming guide states for an architecture.

/// What blocks share of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Registers of one of its four parts, each with a scheduler of its own.
    registers: u64,
    /// Bytes of shared memory.
    shared_bytes: u64,
    warps: u64,
    blocks: u64,
}

/// Parts of a multiprocessor.
const PARTS: u64 = 4;
/// A warp is given registers in pieces of so many.
const REGISTERS_EACH: u64 = 256;
/// A block is given shared memory in pieces of so many bytes.
const SHARED_EACH: u64 = 128;
/// Bytes of shared memory of each block that are the system's.
const SYSTEM_BYTES: u64 = 1024;

impl Limits {
    /// Of an architecture, by its name in `resources.csv`.
    pub fn of(arch: &str) -> Option<Self> {
        let kib = match arch {
            "sm_80" => 164,
            "sm_90a" | "sm_100" => 228,
            _ => return None,
        };
        let shared_bytes = kib << 10;
        Some(Self { registers: 65_536 / PARTS, shared_bytes, warps: 64, blocks: 32 })
    }

    /// Blocks of a launch at once.
    pub fn blocks(&self, block: &Block) -> u64 {
        let warps = block.threads.div_ceil(32).max(1);
        let registers = (block.registers * 32).next_multiple_of(REGISTERS_EACH);
        let by_registers = match registers {
            0 => self.blocks,
            each => self.registers / each * PARTS / warps,
        };
        let shared = (block.shared_bytes + SYSTEM_BYTES).next_multiple_of(SHARED_EACH);
        let by_shared = self.shared_bytes / shared;
        by_registers.min(by_shared).min(self.warps / warps).min(self.blocks)
    }

    /// Warps at once over those that there is room for.
    pub fn occupancy(&self, block: &Block) -> f64 {
        let warps = self.blocks(block) * block.threads.div_ceil(32);
        warps as f64 / self.warps as f64
    }
}

/// What a block takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its threads.
    pub threads: u64,
    /// Registers of a thread.
    pub registers: u64,
    /// Bytes of shared memory, without the system's.
    pub shared_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::{Block, Limits};

    fn blocks(arch: &str, threads: u64, registers: u64, shared_bytes: u64) -> u64 {
        let limits = Limits::of(arch).expect("it is a known one");
        limits.blocks(&Block { threads, registers, shared_bytes })
    }

    #[test]
    fn each_limit_binds_in_its_turn() {
        // Warps: eight blocks of eight.
        assert_eq!(blocks("sm_80", 256, 32, 0), 8);
        // Blocks, where each is one warp.
        assert_eq!(blocks("sm_80", 32, 16, 0), 32);
        // Registers: 168 take 5376 a warp, of which a part holds three.
        assert_eq!(blocks("sm_80", 128, 168, 0), 3);
        // 33 registers are given as 40.
        assert_eq!(blocks("sm_80", 256, 33, 0), blocks("sm_80", 256, 40, 0));
        assert_eq!(blocks("sm_80", 256, 40, 0), 6);
        // Shared memory, with the system's 1 KiB beside each block's own.
        assert_eq!(blocks("sm_80", 128, 32, 54 << 10), 2);
        assert_eq!(blocks("sm_80", 128, 32, 53 << 10), 3);
        assert_eq!(blocks("sm_90a", 128, 32, 56 << 10), 4);
        assert_eq!(blocks("sm_100", 128, 32, 227 << 10), 1);
        assert_eq!(blocks("sm_80", 128, 32, 164 << 10), 0);
    }

    #[test]
    fn occupancy_is_of_warps() {
        let limits = Limits::of("sm_90a").expect("it is a known one");
        let block = Block { threads: 128, registers: 128, shared_bytes: 0 };
        // 4096 registers a warp: four in each part.
        assert!((limits.occupancy(&block) - 0.25).abs() < 1e-9);
        assert!(Limits::of("sm_75").is_none());
    }
}
