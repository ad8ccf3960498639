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
    /// Whether it is a table, which is of no use when its lines are wrapped.
    pub table: bool,
}

impl View {
    /// What a terminal of this width shows.
    fn screen(&self, width: Option<usize>) -> String {
        match width {
            Some(width) if self.table => self.text.lines().map(|line| cut(line, width)).collect(),
            _ => self.text.clone(),
        }
    }
}

/// The line as far as there is room.
fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).chain(['\n']).collect()
}

/// Shows the view.
pub async fn show(
    watch: bool,
    view: impl AsyncFn() -> Result<View, CliError>,
) -> Result<(), CliError> {
    let clear = watch && output::is_watched();
    let mut last = None;
    loop {
        let view = view().await?;
        if clear {
            output::print(&format!("{CLEAR}{}", view.screen(output::width())))?;
        } else if last.as_ref() != Some(&view.essence) {
            output::print(&view.text)?;
        }
        if !watch {
            return Ok(());
        }
        last = Some(view.essence);
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_cut_and_everything_else_is_wrapped() {
        let view = |table| View {
            text: "NAME   ÄGE\nsum\n".to_owned(),
            essence: String::new(),
            table,
        };
        for (table, width, shown) in [
            (true, Some(8), "NAME   Ä\nsum\n"),
            (true, None, "NAME   ÄGE\nsum\n"),
            (false, Some(8), "NAME   ÄGE\nsum\n"),
        ] {
            assert_eq!(view(table).screen(width), shown);
        }
    }
}
