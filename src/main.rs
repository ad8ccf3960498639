//! Parse, run, exit code; and the allocator.

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// Gives memory back after a burst of work: at rest a server with a thousand Functions needs a third of what it needs with
/// the system's.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's options, which it reads at this name: an arena for each core, what is free goes back within a second, and
/// threads keep back no larger pieces than the 16 KiB that a connection's buffers take, which every call wants anew.
#[allow(
    unsafe_code,
    reason = "only the name of the symbol, which is nobody else's"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8] =
    b"percpu_arena:percpu,background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,lg_tcache_max:14\0";

fn main() -> ExitCode {
    faas::cli::run(faas::cli::Cli::parse())
}
