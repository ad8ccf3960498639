//! Shows a view, and with `--watch` shows it again until somebody interrupts: on a terminal in place of the one before,
//! elsewhere below it and only when something has changed.

use std::time::Duration;

use super::{error::CliError, output};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Cursor to the upper left, and all below it is cleared.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is shown.
pub struct View {
    pub text: String,
    /// Equal for views that differ only in how much time has passed.
    pub essence: String,
}

/// Shows the view.
pub async fn show(
    watch: bool,
    view: impl AsyncFn() -> Result<View, CliError>,
) -> Result<(), CliError> {
    let clear = watch && output::is_watched();
    let mut last = None;
    loop {
        let View { text, essence } = view().await?;
        if clear {
            output::print(&format!("{CLEAR}{text}"))?;
        } else if last.as_ref() != Some(&essence) {
            output::print(&text)?;
        }
        if !watch {
            return Ok(());
        }
        last = Some(essence);
        tokio::time::sleep(EVERY).await;
    }
}
