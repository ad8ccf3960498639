//! Builds `guest/`, the init of every function container, as a static program, and names it in `FAAS_INIT_PATH`, so
//! that `include_bytes!(env!("FAAS_INIT_PATH"))` embeds it.

#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const PACKAGE: &str = "faas-init";
const PROFILE: &str = "init";
const LARGEST: usize = 2 * 1024 * 1024;
const STATIC_LIBC: &str = "the init is linked statically, so the static C library must be there: install `libc6-dev` \
    (Debian, Ubuntu) or `glibc-static` (Fedora), or build with a musl --target";

/// What would reach the inner cargo from the outer one, or from the tool that runs it (clippy, an editor, a coverage
/// tool), and make of it something else than a plain build into a directory of its own.
const NOT_INHERITED: [&str; 12] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_ARTIFACT_DIR",
];

fn main() -> ExitCode {
    match build() {
        Ok(init) => {
            println!("cargo::rustc-env=FAAS_INIT_PATH={}", init.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("cargo::error=the container's init could not be built: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<PathBuf, Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for input in ["guest/src", "guest/Cargo.toml"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let system = env::var("CARGO_CFG_TARGET_OS")?;
    if system != "linux" {
        return Err(format!("containers run Linux, but the target is {system}").into());
    }
    let target = env::var("TARGET")?;
    let output = Path::new(&env::var("OUT_DIR")?).join("init");
    let status = cargo(&root, &target, &output)?.status()?;
    if !status.success() {
        return Err(format!(
            "its cargo ended with {status}; if the linker is at fault: {STATIC_LIBC}"
        )
        .into());
    }
    let init = output.join(target).join(PROFILE).join(PACKAGE);
    check(&fs::read(&init)?)?;
    Ok(init)
}

/// The inner cargo. It shares no directory with the outer one, which holds a lock on its own while this runs.
fn cargo(root: &Path, target: &str, output: &Path) -> Result<Command, env::VarError> {
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(root)
        .args(["build", "--package", PACKAGE, "--bin", PACKAGE]);
    // With a target, the flags below are not applied to build scripts, which cannot be linked so.
    cargo
        .args(["--profile", PROFILE, "--target", target])
        .arg("--target-dir")
        .arg(output);
    if root.join("Cargo.lock").exists() {
        cargo.arg("--locked");
    }
    for name in NOT_INHERITED {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cargo.env("CARGO_BUILD_BUILD_DIR", output);
    Ok(cargo)
}

/// A program that needs a loader or libraries would not start in the containers of others.
fn check(program: &[u8]) -> Result<(), String> {
    if program.len() > LARGEST {
        return Err(format!(
            "it has {} bytes, more than the {LARGEST} that are allowed",
            program.len()
        ));
    }
    match has_interpreter(program) {
        Some(false) => Ok(()),
        Some(true) => Err(format!("it is linked dynamically; {STATIC_LIBC}")),
        None => Err("what was built is no ELF program".into()),
    }
}

/// Whether an ELF file names a dynamic loader; `None` if it is no ELF file.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    // Where the table of segments is: its offset, the size of an entry, their number; each with its place and size.
    let (table, size, count) = match elf.get(..5)? {
        b"\x7fELF\x01" => ((0x1c, 4), (0x2a, 2), (0x2c, 2)),
        b"\x7fELF\x02" => ((0x20, 8), (0x36, 2), (0x38, 2)),
        _ => return None,
    };
    let little_endian = *elf.get(5)? == 1;
    let number = |(at, size): (u64, usize)| {
        let at = usize::try_from(at).ok()?;
        let mut bytes = elf.get(at..at.checked_add(size)?)?.to_vec();
        if little_endian {
            bytes.reverse();
        }
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    let (table, size) = (number(table)?, number(size)?);
    let mut kinds = (0..number(count)?).map(|entry| number((table + entry * size, 4)));
    kinds.try_fold(false, |found, kind| Some(found || kind? == PT_INTERP))
}
