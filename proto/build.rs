//! Compiles `pagewise.proto` without protoc.

use prost::Message;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=pagewise.proto");
    let files = protox::compile(["pagewise.proto"], ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo says where")?);
    std::fs::write(out.join("pagewise.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
