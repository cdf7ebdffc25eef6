//! Markdown tables.

/// A table; a bar in a cell stays a bar.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line =
        |cells: [String; N]| format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    let rule = format!("|{}\n", "---|".repeat(N));
    [line(head.map(str::to_owned)), rule].into_iter().chain(rows.into_iter().map(line)).collect()
}

/// A word as code; nothing stays nothing.
pub(crate) fn code(word: &str) -> String {
    if word.is_empty() { String::new() } else { format!("`{word}`") }
}

/// A description as one line of plain text: an asterisk is one.
pub(crate) fn prose(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('*', "\\*")
}
