//! Columns for people, in plain text.

use ratatui::text::Span;

use crate::text;

/// Lines of cells below their titles, each column as wide as its widest cell. What strangers say acts on no terminal.
pub(crate) fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let titles = titles.map(str::to_owned);
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| plain(cell)))
        .collect();
    let lines = || std::iter::once(&titles).chain(&rows);
    let width = |n: usize| lines().map(|row| width(&row[n])).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in lines() {
        let mut line = String::new();
        for (cell, wanted) in row.iter().zip(widths) {
            line.push_str(cell);
            let pad = wanted - self::width(cell) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn plain(cell: &str) -> String {
    text::of_certain_width(&text::plain(cell))
}

fn width(cell: &str) -> usize {
    Span::raw(cell).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            ["a".to_owned(), "x".to_owned()],
            ["größer".to_owned(), String::new()],
            ["\u{1b}[2J".to_owned(), "名前".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "TAGS"], &rows),
            "NAME    TAGS\na       x\ngrößer\n\u{fffd}[2J    名前\n"
        );
    }
}
