//! Tells that files have changed, at once where the kernel says so, and soon where it does not.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time::timeout};

/// How often is looked without being told to: events can be lost, and a link can be turned elsewhere.
const LOOK: Duration = Duration::from_secs(5);

/// Tells once at the beginning, and then of every change. `tell` answers whether they could be read; what could not is told
/// again at each look until it could. Never ends.
pub async fn watch(files: &[PathBuf], tell: impl Fn() -> bool) {
    watch_by(LOOK, files, tell).await;
}

async fn watch_by(look: Duration, files: &[PathBuf], tell: impl Fn() -> bool) {
    let event = Arc::new(Notify::new());
    let _watcher = watcher(files, &event)
        .inspect_err(|error| tracing::debug!(%error, "Files are looked at now and then only"));
    let mut seen = None;
    loop {
        let now = Some(files.iter().map(|file| mark(file)).collect::<Vec<_>>());
        if now != seen {
            seen = now.filter(|_| tell());
        }
        let _ = timeout(look, event.notified()).await;
    }
}

fn watcher(files: &[PathBuf], event: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let event = Arc::clone(event);
    let mut watcher = notify::recommended_watcher(move |_| event.notify_one())?;
    for file in files {
        // Files are replaced, so their directory tells.
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        watcher.watch(dir.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// What is another for another file or content.
fn mark(file: &Path) -> Option<(u64, u64, i64, i64, u64)> {
    let data = fs::metadata(file).ok()?;
    let changed = (data.ctime(), data.ctime_nsec());
    Some((data.dev(), data.ino(), changed.0, changed.1, data.len()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn what_could_not_be_read_is_tried_at_each_look_until_it_could() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens.json");
        fs::write(&file, "").unwrap();
        let files = [file];
        let (look, told) = (Duration::from_millis(1), Cell::new(0));
        let tell = || {
            told.set(told.get() + 1);
            told.get() == 3
        };
        let third = async {
            while told.get() < 3 {
                sleep(look).await;
            }
            // Looks go on, and nothing is told.
            sleep(look * 20).await;
        };
        tokio::select! {
            () = watch_by(look, &files, tell) => unreachable!(),
            in_time = timeout(Duration::from_secs(10), third) => in_time.unwrap(),
        }
        assert_eq!(told.get(), 3);
    }
}
