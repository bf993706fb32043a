//! A launch of a kernel on memory that begins at address 0, and the machines that run it.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::SOURCE;

/// A kernel and its number in the host's driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    Open,
    Normalize,
    Widen,
    Gather,
}

/// What a kernel is called with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument {
    /// Offset of the memory, which becomes an address.
    Address(u64),
    U64(u64),
    U32(u32),
}

#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) kernel: Kernel,
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) memory: Vec<u8>,
}

/// Something that runs kernels: the host or a GPU.
pub(crate) trait Machine {
    /// The memory after the launch.
    fn run(&mut self, launch: &Launch) -> Vec<u8>;
}

/// The kernels as a program of the host.
pub(crate) struct Host {
    program: Child,
    _directory: tempfile::TempDir,
}

impl Host {
    /// Compiles the kernels with the machine's C++ compiler; else says what is missing.
    pub(crate) fn compile() -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (directory.path().join("kernels.cpp"), directory.path().join("kernels"));
        let text = [include_str!("shim.h"), SOURCE, include_str!("driver.cpp")].concat();
        std::fs::write(&source, text).unwrap();
        // What is undefined in C++ stops the program; without the sanitizer's library the plain program has to do.
        let checked = ["-fsanitize=undefined", "-fno-sanitize-recover=all"];
        let compiled = compile(&source, &program, &checked).or_else(|_| compile(&source, &program, &[]));
        compiled?;
        let child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Ok(Self { program: child.map_err(|error| error.to_string())?, _directory: directory })
    }
}

fn compile(source: &Path, program: &Path, more: &[&str]) -> Result<(), String> {
    let mut command = Command::new("c++");
    command.args([
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Wno-unknown-pragmas",
        "-Wno-pragma-once-outside-header",
    ]);
    command.args(more).arg("-o").arg(program).arg(source);
    let output = command.output().map_err(|error| format!("no C++ compiler: c++: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("c++ refuses the kernels: {said}")) }
}

impl Machine for Host {
    fn run(&mut self, launch: &Launch) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = u32::try_from(launch.arguments.len()).unwrap();
        for word in [launch.kernel as u32, launch.grid, launch.block, count] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&(launch.memory.len() as u64).to_le_bytes());
        for argument in &launch.arguments {
            let (kind, value) = match *argument {
                Argument::Address(offset) => (1_u32, offset),
                Argument::U64(value) => (0, value),
                Argument::U32(value) => (0, u64::from(value)),
            };
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&launch.memory);
        let stdin = self.program.stdin.as_mut().unwrap();
        stdin.write_all(&bytes).unwrap();
        stdin.flush().unwrap();
        let mut memory = vec![0; launch.memory.len()];
        self.program.stdout.as_mut().unwrap().read_exact(&mut memory).unwrap();
        memory
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.program.stdin.take());
        drop(self.program.wait());
    }
}
