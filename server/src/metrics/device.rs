//! The device on which kernels run: what it is, and its memory.

use super::names::Names;
use crate::backend::Named;
use kernels_core::device::DeviceMemory;
use prometheus_client::metrics::gauge::Gauge;

/// What is told of a device.
pub struct Device {
    total: Gauge,
    free: Gauge,
    allocated: Gauge,
}

impl Device {
    pub(super) fn new(names: &mut Names, device: &Named) -> Self {
        let facts = [("kind", device.kind), ("name", &device.name)];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        names.own_fact("device", "Where kernels run", facts.to_vec());
        let mut bytes = |part: &str, help| {
            names.own(&format!("device_memory_{part}_bytes"), help, Gauge::default())
        };
        Self {
            total: bytes("total", "All memory of the device"),
            free: bytes("free", "What nobody has, whoever shares the device"),
            allocated: bytes("allocated", "What weights, pages and steps of this server take"),
        }
    }

    /// How it stands.
    pub(super) fn memory(&self, memory: &DeviceMemory) {
        let set = |gauge: &Gauge, bytes: u64| gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        set(&self.total, memory.total_bytes);
        set(&self.free, memory.free_bytes);
        set(&self.allocated, memory.allocated_bytes);
    }
}
