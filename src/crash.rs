//! Points along the way of a Function at which a test may end the process as kill -9 does. Only what is built for tests has
//! them (the feature `crash-points`), and what is optimised has them not even then.

use std::{fs, path::PathBuf, sync::OnceLock};

use rustix::process::{Signal, getpid, kill_process};

use crate::function::FunctionKey;

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

/// From now on the process ends where this file says: a point, and the Function that has come to it.
pub fn arm(file: PathBuf) {
    // Once for a process: whoever comes second finds it done.
    let _ = FILE.set(file);
}

/// Whether this build has them.
pub const BUILT_IN: bool = cfg!(all(feature = "crash-points", debug_assertions));

/// A Function has come to this point.
pub fn point(point: Point, function: &FunctionKey) {
    end_if(|named, of| named == point && of == function.to_string());
}

/// Some Function has come to this point, where it is not known which.
pub fn point_of_any(point: Point) {
    end_if(|named, _| named == point);
}

fn end_if(is_here: impl FnOnce(Point, &str) -> bool) {
    if !BUILT_IN {
        return;
    }
    let Some(armed) = FILE.get().and_then(|file| fs::read_to_string(file).ok()) else {
        return;
    };
    let named = armed.split_once(' ');
    if named.is_some_and(|(point, of)| point.parse().is_ok_and(|point| is_here(point, of))) {
        // It cannot fail, and does not come back.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
