//! Generates the gRPC messages, client and server from the endpoint's proto file.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = "../crates/endpoints/proto";
    println!("cargo::rerun-if-changed={folder}");
    let mut compiler = protox::Compiler::new([folder])?;
    compiler.open_file("tinyfaas.proto")?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
