//! Points along the way of a Function at which a test may end the process as kill -9 does. Release builds have none.

use std::{fs, path::PathBuf, sync::OnceLock};

use rustix::process::{Signal, getpid, kill_process};

/// A step that may be the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Point {
    UploadStored,
    ObjectStored,
    ContextDigested,
    BuildSent,
    ImageBuilt,
    ContainerCreated,
    InstanceStarted,
    InstanceReady,
    BeforeSwitch,
    StatusWritten,
    Draining,
    Stopping,
    Deleting,
}

static FILE: OnceLock<PathBuf> = OnceLock::new();

/// From now on the process ends at the point that this file names.
pub fn arm(file: PathBuf) {
    // Once for a process: whoever comes second finds it done.
    let _ = FILE.set(file);
}

/// The process has come to this point.
pub fn point(point: Point) {
    if cfg!(debug_assertions)
        && let Some(file) = FILE.get()
        && fs::read_to_string(file).is_ok_and(|name| name.parse() == Ok(point))
    {
        // It cannot fail, and does not come back.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
