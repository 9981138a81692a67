//! Plain text tables.

/// Lines of a table: columns padded to their widest cell, numbers to the right.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let number =
        |cell: &str| cell.starts_with(|c: char| c.is_ascii_digit() || c == '-') && !cell.contains(' ');
    let right: Vec<bool> =
        (0..header.len()).map(|c| rows.iter().all(|r| r.get(c).is_none_or(|v| number(v)))).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).zip(&right).map(|((cell, &width), &right)| {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            if right { format!("{space}{cell}") } else { format!("{cell}{space}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let mut out = vec![line(&header.iter().map(ToString::to_string).collect::<Vec<_>>())];
    out.push(widths.iter().map(|&w| "-".repeat(w)).collect::<Vec<_>>().join("  "));
    out.extend(rows.iter().map(|r| line(r)));
    out.join("\n")
}

/// A length to six significant digits, without trailing zeros.
pub fn length(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e7).contains(&value.abs()) {
        return format!("{value:.5e}");
    }
    let digits = (5 - value.abs().log10().floor().max(-5.0) as i32).clamp(0, 10) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A count with thousands separated.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_thousands() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1234), "1,234");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn lengths_keep_six_digits_and_no_trailing_zeros() {
        assert_eq!(length(0.05), "0.05");
        assert_eq!(length(1.0), "1");
        assert_eq!(length(0.001_216_543_21), "0.00121654");
        assert_eq!(length(1.17746), "1.17746");
        assert_eq!(length(2e27), "2.00000e27");
    }

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let text =
            render(&["op", "ms"], &[vec!["conv".into(), "1.5".into()], vec!["p".into(), "10.25".into()]]);
        assert_eq!(text, "op       ms\n----  -----\nconv    1.5\np     10.25");
    }
}
