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
    /// What a terminal of this size, in columns and lines, shows.
    fn screen(&self, size: Option<(usize, usize)>) -> String {
        match size {
            Some(size) if self.table => cut(&self.text, size),
            _ => self.text.clone(),
        }
    }
}

/// As much as there is room for; the cursor takes the last line.
fn cut(text: &str, (width, height): (usize, usize)) -> String {
    let all = text.lines().count();
    let shown = if all < height {
        all
    } else {
        height.saturating_sub(2)
    };
    let lines = text.lines().take(shown).map(str::to_owned);
    let rest = (shown < all).then(|| format!("... and {} lines more", all - shown));
    let cut = |line: String| line.chars().take(width).chain(['\n']).collect::<String>();
    lines.chain(rest).map(cut).collect()
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
            output::print(&format!("{CLEAR}{}", view.screen(output::size())))?;
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
            text: "NAME   ÄGE\nsum\nmax\nmin\n".to_owned(),
            essence: String::new(),
            table,
        };
        let whole = "NAME   ÄGE\nsum\nmax\nmin\n";
        for (table, size, shown) in [
            (true, Some((8, 5)), "NAME   Ä\nsum\nmax\nmin\n"),
            (
                true,
                Some((80, 4)),
                "NAME   ÄGE\nsum\n... and 2 lines more\n",
            ),
            (true, Some((80, 1)), "... and 4 lines more\n"),
            (true, None, whole),
            (false, Some((8, 2)), whole),
        ] {
            assert_eq!(view(table).screen(size), shown, "{size:?}");
        }
    }
}
