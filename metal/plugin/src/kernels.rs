//! The kernels, embedded as Metal's compiler made them on a Mac. The driver makes its own code
//! of all of them when the device is opened, so that nothing of it is left to a launch.

use crate::{failure, refusal};
use dispatch2::DispatchData;
use kernels_core::Error;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{MTLComputePipelineState, MTLDevice, MTLLibrary};
use std::collections::BTreeMap;

/// An entry, ready to be launched.
pub type Pipeline = Retained<ProtocolObject<dyn MTLComputePipelineState>>;

const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.metallib"));

/// Every entry of every kernel.
pub struct Kernels {
    pipelines: BTreeMap<String, Pipeline>,
}

impl Kernels {
    /// Makes them ready.
    pub fn load(device: &ProtocolObject<dyn MTLDevice>) -> Result<Self, Error> {
        let library = device.newLibraryWithData_error(&DispatchData::from_bytes(LIBRARY));
        let library = library.map_err(|error| failure::of("library", &error))?;
        let mut pipelines = BTreeMap::new();
        for name in library.functionNames().iter() {
            let function = library.newFunctionWithName(&name);
            let function = function.ok_or_else(|| failure::nothing("entry"))?;
            let pipeline = device.newComputePipelineStateWithFunction_error(&function);
            let pipeline = pipeline.map_err(|error| failure::of("entry", &error))?;
            refusal::of_width(pipeline.threadExecutionWidth())?;
            pipelines.insert(name.to_string(), pipeline);
        }
        Ok(Self { pipelines })
    }

    /// An entry.
    pub fn pipeline(&self, entry: &str) -> &Pipeline {
        let pipeline = self.pipelines.get(entry);
        pipeline.unwrap_or_else(|| panic!("no kernel has the entry {entry}"))
    }
}
