//! From results to the tables and the plot of `docs/performance.md`.

use crate::row::{Results, Row, Target};
use anyhow::{Context, Result};
use std::fmt::Write as _;

/// Between these lines of the page is what is generated.
const BEGIN: &str = "<!-- results: begin -->";
const END: &str = "<!-- results: end -->";

/// The page with the results in the place of those before.
///
/// # Errors
/// If the page has no place for them.
pub fn insert(page: &str, results: &Results) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no place")?;
    let (_, after) = rest.split_once(END).context("the place has no end")?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", table(results)))
}

fn table(results: &Results) -> String {
    let mut text = format!(
        "Measured on {}, revision {}.\n\n\
         | what | reached | spread | target | holds | seen |\n|---|---|---|---|---|---|\n",
        results.machine, results.revision
    );
    for row in &results.rows {
        let holds = match row.holds() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        // Writing to a string does not fail.
        let _infallible = writeln!(
            text,
            "| {} | {} | {} to {} | {} | {holds} | {} |",
            row.what,
            shown(row, row.value),
            number(row.low),
            number(row.high),
            target(row),
            row.seen
        );
    }
    text
}

fn shown(row: &Row, value: f64) -> String {
    format!("{} {}", number(value), row.unit)
}

fn target(row: &Row) -> String {
    match row.target {
        Target::AtLeast(min) => format!("≥ {}", shown(row, min)),
        Target::AtMost(max) => format!("≤ {}", shown(row, max)),
        Target::None => String::new(),
    }
}

/// Three digits, or all before the point.
fn number(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A plot: each row that has a target as a bar, relative to it, with its spread.
#[must_use]
pub fn plot(results: &Results) -> String {
    const ROW: f64 = 22.0;
    const LEFT: f64 = 250.0;
    const UNIT: f64 = 160.0;
    const RATIO_MAX: f64 = 3.0;
    let rows: Vec<(&Row, [f64; 3])> = results
        .rows
        .iter()
        .filter_map(|row| Some((row, relative(row)?)))
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let height = ROW * (rows.len() as f64 + 2.0);
    let width = LEFT + UNIT * RATIO_MAX + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"14\">what was reached, over the target (right of the line: it holds)</text>\n"
    );
    for (index, (row, [low, value, high])) in rows.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let y = ROW * (index as f64 + 1.0);
        let x = |ratio: f64| LEFT + UNIT * ratio.clamp(0.0, RATIO_MAX);
        let color = if *value >= 1.0 { "#4a7" } else { "#c64" };
        // Writing to a string does not fail.
        let _infallible = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"12\" fill=\"{color}\"/>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"black\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.2}</text>",
            LEFT - 8.0,
            y + 14.0,
            row.name,
            y + 4.0,
            x(*value) - LEFT,
            x(*low),
            x(*high),
            y + 10.0,
            y + 10.0,
            x(high.max(*value)) + 6.0,
            y + 14.0,
        );
    }
    let line = LEFT + UNIT;
    svg + &format!(
        "<line x1=\"{line}\" x2=\"{line}\" y1=\"{ROW}\" y2=\"{}\" stroke=\"#333\" \
         stroke-dasharray=\"4\"/>\n</svg>\n",
        height - ROW / 2.0
    )
}

/// How much of the target was reached: low, median, high; more than 1 is better than wanted.
fn relative(row: &Row) -> Option<[f64; 3]> {
    match row.target {
        Target::AtLeast(min) => Some([row.low, row.value, row.high].map(|value| value / min)),
        Target::AtMost(max) if max > 0.0 => {
            Some([row.high, row.value, row.low].map(|value| max / value.max(max / 100.0)))
        }
        Target::AtMost(_) | Target::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        Results {
            machine: "a machine".to_owned(),
            revision: "abc".to_owned(),
            at: 0,
            rows: vec![
                Row::new(
                    "a",
                    "what a",
                    "times",
                    &[2.0, 4.0, 3.0],
                    Target::AtLeast(2.0),
                ),
                Row::new("b", "what b", "MB", &[20.0], Target::AtMost(10.0)),
                Row::new("c", "what c", "µs", &[1.0], Target::None),
            ],
        }
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let page = insert(&page, &results()).unwrap();
        assert!(
            page.starts_with("above\n") && page.ends_with("below\n"),
            "{page}"
        );
        assert!(!page.contains("\nold\n"));
        let line = "| what a | 3.00 times | 2.00 to 4.00 | ≥ 2.00 times | yes |  |";
        assert!(page.contains(line), "{page}");
        assert!(page.contains("| ≤ 10.0 MB | **no** |"), "{page}");
        assert_eq!(insert(&page, &results()).unwrap(), page);
    }

    #[test]
    fn the_plot_has_a_bar_for_each_target() {
        let svg = plot(&results());
        assert!(svg.contains(">a</text>") && svg.contains(">b</text>"));
        assert!(!svg.contains(">c</text>"));
        assert!(
            svg.contains(">1.50</text>") && svg.contains(">0.50</text>"),
            "{svg}"
        );
    }
}
