//! A table as kubectl prints them: columns as wide as their widest cell, three spaces between them.
//!
//! Cells come from elsewhere, as the names of events do: what a terminal would act upon is not passed on.

/// The rows in lines; the first row is the headings.
pub(crate) fn of(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    rows.iter().fold(String::new(), |text, row| text + &line(row, &widths))
}

/// One row in a line.
pub(crate) fn line(row: &[String], widths: &[usize]) -> String {
    let padded = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", harmless(cell)));
    padded.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
}

fn harmless(cell: &str) -> String {
    cell.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_cell_cannot_move_the_cursor_or_begin_a_line() {
        let row = ["\u{1b}[2J\nx".to_owned()];
        assert_eq!(super::line(&row, &[0]), "\u{fffd}[2J\u{fffd}x\n");
    }

    #[test]
    fn columns_stand_below_one_another_and_lines_end_with_their_last_cell() {
        let rows = [["A", "LONG", ""], ["longer", "b", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(super::of(&rows), "A        LONG\nlonger   b\n");
    }
}
