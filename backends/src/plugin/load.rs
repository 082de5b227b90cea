//! A plugin's library, found and looked over before anything of it is used.

use plugin::{BUILD, PWP_SYMBOL, pwp_table};
use std::error::Error;
use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// Why there is no device.
#[derive(Debug)]
pub enum Refused {
    /// No such file.
    Absent(PathBuf),
    /// The system does not load it: a driver's library is not here, above all.
    Unloadable(PathBuf, String),
    /// It is no plugin.
    Foreign(PathBuf),
    /// It is of another build.
    Build {
        /// The file.
        path: PathBuf,
        /// What it says of itself.
        got: String,
    },
    /// The device itself says no.
    Device(kernels_core::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(path) => write!(f, "there is no plugin {}", path.display()),
            Self::Unloadable(path, why) if why.contains("undefined symbol") => {
                let path = path.display();
                write!(f, "{path} does not load, for the driver is too old, or none: {why}")
            }
            Self::Unloadable(path, why) => {
                write!(f, "{} does not load, is the driver installed? {why}", path.display())
            }
            Self::Foreign(path) => write!(f, "{} is no plugin of pagewise", path.display()),
            Self::Build { path, got } => write!(
                f,
                "{} is of another build: it says {got}, this one is {BUILD}",
                path.display()
            ),
            Self::Device(error) => write!(f, "{error}"),
        }
    }
}

impl Error for Refused {}

/// The file of a kind of device: `libpagewise_cuda.so`.
pub fn library_name(kind: &str) -> String {
    let (before, after) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    format!("{before}pagewise_{kind}{after}")
}

/// The table of a plugin of this build. Its library stays loaded for good: a driver that came
/// with it has threads and handlers of its own, whose code would be gone beneath them.
pub fn open(path: &Path) -> Result<&'static pwp_table, Refused> {
    // The system looks for a bare name elsewhere.
    let path = &path.canonicalize().map_err(|_| Refused::Absent(path.to_owned()))?;
    // SAFETY: a plugin of ours runs nothing when it is loaded; whose file it is, the folder
    // that the user named answers for.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|error| {
        // The system's own words, which name what is missing, are behind the error.
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        Refused::Unloadable(path.to_owned(), why)
    })?;
    type Entry = unsafe extern "C" fn() -> *const pwp_table;
    // SAFETY: the symbol is this function in every build; the table is looked at only as far
    // as the part that never changes, until its build is known.
    let table = unsafe {
        let entry = library.get::<Entry>(PWP_SYMBOL);
        let entry = entry.map_err(|_| Refused::Foreign(path.to_owned()))?;
        entry()
    };
    if table.is_null() {
        return Err(Refused::Foreign(path.to_owned()));
    }
    // SAFETY: size and build come first in every build, and the library stays loaded.
    let (size, build) = unsafe { ((*table).struct_size, (*table).build) };
    if build.is_null() {
        return Err(Refused::Foreign(path.to_owned()));
    }
    // SAFETY: the header says that it is ended by 0.
    let got = unsafe { CStr::from_ptr(build) }.to_string_lossy().into_owned();
    if got != BUILD || size != size_of::<pwp_table>() as u64 {
        return Err(Refused::Build { path: path.to_owned(), got });
    }
    std::mem::forget(library);
    // SAFETY: of this build it is this struct; its library is never unloaded.
    Ok(unsafe { &*table })
}
