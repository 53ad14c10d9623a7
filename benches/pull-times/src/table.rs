//! Results as a table, in Markdown.

use std::fmt::Write as _;

use crate::figures::{Row, Spread};

const COLUMNS: [&str; 11] = [
    "system",
    "nodes",
    "median node, s",
    "slowest node, s",
    "slowest ÷ bound",
    "median ÷ one",
    "slowest ÷ one",
    "registry ÷ F",
    "seeds ÷ F",
    "CPU s/GiB",
    "peak MiB",
];
/// Beside the figures of each row, to judge them by.
const BESIDE: [&str; 2] = ["machine busy", "load before"];
/// Spreads below this are not worth the room.
const STEADY: f64 = 0.005;

/// All rows, in columns that are as wide as they need.
pub fn table(rows: &[Row]) -> String {
    let head = COLUMNS.iter().chain(&BESIDE).map(|title| (*title).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len() + BESIDE.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:<width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let over_one = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
    vec![
        row.system.clone(),
        row.nodes.to_string(),
        spread(row.median, 1),
        spread(row.slowest, 1),
        format!("{:.2}", row.slowest.median / row.bound),
        over_one(row.median_over_one),
        over_one(row.slowest_over_one),
        spread(row.registry, 2),
        spread(row.seeds, 2),
        spread(row.cpu_per_gib, 1),
        (row.peak_anonymous >> 20).to_string(),
        format!("{:.0} %", row.machine_busy.median * 100.0),
        spread(row.load_before, 1),
    ]
}

/// The middle, and in parentheses how far the runs were apart, where they were.
fn spread(spread: Spread, digits: usize) -> String {
    if spread.most - spread.least < STEADY.max(spread.median * STEADY) {
        return format!("{:.digits$}", spread.median);
    }
    format!(
        "{:.digits$} ({:.digits$}–{:.digits$})",
        spread.median, spread.least, spread.most
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::sample;

    #[test]
    fn a_row_says_middle_and_spread() {
        let text = table(&sample());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].starts_with("| system") && lines[1].starts_with("|---"));
        assert!(lines[2].contains("| 22.0 (20.0–24.0) "), "{text}");
        assert!(lines[3].contains("| packswarm pull | 3 "), "{text}");
        assert!(lines[3].contains("| 1.00 ") && lines[3].contains("| 8.0 "), "{text}");
        let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn runs_that_agree_have_no_spread() {
        let same = |value| Spread::of([value, value]).unwrap();
        assert_eq!(spread(same(1.0), 2), "1.00");
        assert_eq!(spread(Spread::of([1.0, 1.1]).unwrap(), 2), "1.05 (1.00–1.10)");
    }
}
