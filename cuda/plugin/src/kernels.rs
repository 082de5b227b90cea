//! The kernels, embedded as the compiler made them. All are loaded, and every entry of theirs
//! is found and made ready, when the device is opened: nothing of it is left to a launch, which
//! may be recorded. For the architectures that they are compiled for nothing is compiled then.

use crate::context::Context;
use crate::driver::{Failure, call};
use cust::sys::{CUfunction, CUfunction_attribute, CUmodule};
use kernels_core::Error;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// The version of CUDA whose compiler made them.
pub const COMPILED_BY: i32 = COMPILER;

/// What the compiler made of a file.
struct Fatbin {
    /// The name of the file.
    stem: &'static str,
    /// Its entries.
    entries: &'static [&'static str],
    image: &'static Aligned<[u8]>,
}

/// Bytes that begin where the driver may read them as words.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

/// Every entry of every kernel, ready to be launched.
pub struct Kernels {
    context: Arc<Context>,
    modules: Vec<CUmodule>,
    functions: BTreeMap<&'static str, CUfunction>,
}

impl Kernels {
    /// Loads them; a block may have so much shared memory.
    pub fn load(context: &Arc<Context>, shared_bytes_max: u32) -> Result<Self, Error> {
        let _entered = context.enter()?;
        let (modules, functions) = (Vec::new(), BTreeMap::new());
        let mut kernels = Self { context: context.clone(), modules, functions };
        for fatbin in FATBINS {
            let mut module = null_mut();
            let loaded = call!(cuModuleLoadData(&mut module, fatbin.image.0.as_ptr().cast()));
            loaded.map_err(|failure| failure.of(fatbin.stem))?;
            kernels.modules.push(module);
            for &entry in fatbin.entries {
                let function = ready(module, entry, shared_bytes_max);
                kernels.functions.insert(entry, function.map_err(|failure| failure.of(entry))?);
            }
        }
        Ok(kernels)
    }

    /// An entry.
    pub fn function(&self, entry: &str) -> CUfunction {
        let function = self.functions.get(entry);
        *function.unwrap_or_else(|| panic!("no kernel has the entry {entry}"))
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        for module in self.modules.drain(..) {
            self.context.destroy(|| call!(cuModuleUnload(module)));
        }
    }
}

/// Finds an entry, and lets it have all the shared memory that it may ask for: above 48 KiB
/// that has to be said before, and what a launch asks for still decides what it gets.
fn ready(module: CUmodule, entry: &str, shared_bytes_max: u32) -> Result<CUfunction, Failure> {
    use CUfunction_attribute::{
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC,
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as STATIC,
    };
    let name = CString::new(entry).expect("names of entries have no 0");
    let (mut function, mut fixed) = (null_mut(), 0);
    call!(cuModuleGetFunction(&mut function, module, name.as_ptr()))?;
    call!(cuFuncGetAttribute(&mut fixed, STATIC, function))?;
    call!(cuFuncSetAttribute(function, DYNAMIC, shared_bytes_max as i32 - fixed))?;
    Ok(function)
}

#[cfg(test)]
mod tests {
    use super::{COMPILED_BY, FATBINS};
    use std::collections::BTreeSet;

    #[test]
    fn every_file_has_entries_and_each_name_is_one_files() {
        let mut names = BTreeSet::new();
        for fatbin in FATBINS {
            assert!(!fatbin.entries.is_empty(), "{}", fatbin.stem);
            for entry in fatbin.entries {
                assert!(names.insert(entry), "{entry}");
            }
        }
        assert!(names.contains(&"pw_norm"));
    }

    #[test]
    fn images_are_fatbins_that_begin_at_words() {
        for fatbin in FATBINS {
            let image = &fatbin.image.0;
            assert_eq!(image[..4], 0xba55_ed50_u32.to_le_bytes(), "{}", fatbin.stem);
            assert!(image.as_ptr().addr().is_multiple_of(64), "{}", fatbin.stem);
        }
    }

    #[test]
    fn the_compiler_has_the_version_of_the_requirements() {
        let text = include_str!("../../requirements.txt");
        let version =
            format!("nvidia-cuda-nvcc=={}.{}.", COMPILED_BY / 1000, COMPILED_BY % 1000 / 10);
        assert!(text.contains(&version), "{version}");
    }
}
