//! Tables for people (pure): padded columns without borders, fit for `awk` too.

use crate::text::plain;

/// Between two columns.
const GAP: &str = "   ";
/// Stands for a cell that is empty, so that columns can be counted.
const EMPTY: &str = "-";

/// Lines of cells below a header.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Only a header yet.
    pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            rows: vec![header.into_iter().map(str::to_owned).collect()],
        }
    }

    /// Adds a line; it has as many cells as the header.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// The table, every line behind `indent`.
    pub fn render(&self, indent: &str) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::from(indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}{GAP}"));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(move |row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
        };
        (0..columns)
            .map(|column| width(column).unwrap_or_default())
            .collect()
    }
}

/// The cell's first line; that there are more is shown.
fn one_line(cell: &str) -> String {
    let cell = plain(cell);
    let mut lines = cell.trim().lines();
    let first = lines.next().unwrap_or(EMPTY);
    if lines.next().is_some() {
        format!("{first} ...")
    } else {
        first.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_and_lines_end_without_blanks() {
        let mut table = Table::new(["NAME", "READY", "URL"]);
        table.row(["sum".to_owned(), "True".to_owned(), "http://x".to_owned()]);
        table.row([
            "übergroß".to_owned(),
            String::new(),
            "two\nlines".to_owned(),
        ]);
        assert_eq!(
            table.render("  "),
            "  NAME       READY   URL\n  sum        True    http://x\n  übergroß   -       two ...\n"
        );
    }
}
