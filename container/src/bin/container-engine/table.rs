//! Tables for people: columns as wide as what is in them.

/// Rows of text.
pub struct Columns<const N: usize> {
    rows: Vec<[String; N]>,
    lines: Vec<String>,
}

/// Between two columns.
const GAP: usize = 3;

impl<const N: usize> Columns<N> {
    /// With these words above.
    pub fn new(head: [&str; N]) -> Columns<N> {
        Columns {
            rows: vec![head.map(str::to_owned)],
            lines: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// Adds a line that is no row.
    pub fn line(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    /// Writes all to standard output; `rows` says whether the rows too.
    pub fn print(&self, rows: bool) {
        use std::io::Write;
        let mut text = self.lines.iter().fold(String::new(), |text, line| text + line + "\n");
        if rows {
            text.push_str(&self.text());
        }
        // Nobody reads: then there is nothing to say.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    fn text(&self) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:<0$}", width + GAP));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Columns::new(["ID", "NAME"]);
        table.row(["12345".into(), "web".into()]);
        assert_eq!(table.text(), "ID      NAME\n12345   web\n");
    }
}
